"""A headless Chromium asked through its debugging pipe: no driver, no package."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--mute-audio",
    "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


class Browser:
    """One page; ``errors`` has what the console called an error, and requests that leave the machine."""

    def __init__(self, page: Path, profile: Path, width: int = 1200, dark: bool = False) -> None:
        read_commands, self._commands = os.pipe()
        self._replies, write_replies = os.pipe()
        # Chromium reads from 3 and writes to 4; the shell puts the pipes there.
        line = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_replies}'
        self.process = subprocess.Popen(
            ["bash", "-c", line, str(CHROMIUM), *SWITCHES, f"--user-data-dir={profile}"],
            pass_fds=(read_commands, write_replies), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_commands)
        os.close(write_replies)
        self.errors: list[str] = []
        self.events: list[str] = []
        self._rest, self._number, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width)
        if dark:
            self.call(
                "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
            )
        self.call("Page.navigate", url=page.resolve().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._receive()

    def resize(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def ask(self, script: str) -> Any:
        """The value of an expression, which may be a promise."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self._commands)
        os.close(self._replies)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return dict(reply["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = os.read(self._replies, 1 << 20)
            assert chunk, "Chromium has ended"
            self._rest += chunk
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params") or {})
        return message

    def _note(self, method: str, own: dict[str, Any]) -> None:
        self.events.append(method)
        if method == "Runtime.exceptionThrown" or (
            method == "Log.entryAdded" and own["entry"]["level"] == "error"
        ):
            self.errors.append(json.dumps(own))
        if method == "Runtime.consoleAPICalled" and own["type"] in ("error", "assert"):
            self.errors.append(json.dumps(own))
        if method == "Network.requestWillBeSent":
            address = own["request"]["url"]
            if not address.startswith(("data:", "file:", "blob:")):
                self.errors.append(f"asked for {address}")
