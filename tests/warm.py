"""A Python that has loaded torch once and forks for every command, so that commands start at once in tests.

``warm.py serve SOCKET PID`` serves as long as that process lives; ``warm.py ask SOCKET NAME ARGUMENT ...``
is what stands on PATH for ``featcache`` and ``python``. The command runs with the files, folder and
environment of the asker, who leaves with its exit code. `WarmProcess` asks from Python, and is much like
``subprocess.Popen``.
"""

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

LOADED = (
    "torch", "torch._dynamo", "torch.fx.experimental.symbolic_shapes", "torchaudio.functional", "zarr",
    "sklearn.linear_model", "optuna", "matplotlib.pyplot", "featcache.heads", "featcache.testing",
    "featcache.cli.main", "featcache.cli.extract", "featcache.cli.probe", "featcache.cli.compare",
    "featcache.cli.manifest", "featcache.heads.probing.probe", "featcache.extraction.extract",
)  # fmt: skip


def serve(path: str, owner: int) -> None:
    """Fork for each asker, as long as the owner lives."""
    from importlib import import_module

    for name in LOADED:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{path}.new")
        server.listen()
        os.rename(f"{path}.new", path)  # whoever sees it is answered
        server.settimeout(1)
        while lives(owner):
            try:
                asker, _ = server.accept()
            except TimeoutError:
                continue
            asker.settimeout(None)
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                server.close()
                answer(asker)
            asker.close()
    shutil.rmtree(Path(path).parent)


def lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def answer(asker: socket.socket) -> None:
    """Become what is asked for, and leave as it would."""
    length = int.from_bytes(asker.recv(4, socket.MSG_WAITALL), "big")
    _, files, _, _ = socket.recv_fds(asker, 1, 3)
    wanted = json.loads(asker.recv(length, socket.MSG_WAITALL))
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(wanted["folder"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    asker.sendall(os.getpid().to_bytes(4, "big"))
    code = 1
    try:
        run(*wanted["command"])
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    asker.send(bytes([code]))
    os._exit(code)


def run(name: str, *arguments: str) -> None:
    """``featcache ARGUMENT ...`` or ``python -c TEXT``."""
    sys.argv = [name, *arguments]
    if name == "featcache":
        from featcache.cli.main import main

        main()
    elif arguments[:1] == ("-c",) and len(arguments) == 2:
        main_module = type(sys)("__main__")
        sys.modules["__main__"] = main_module
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec"), main_module.__dict__)
    else:
        raise SystemExit(f"warm.py knows python -c TEXT alone, not {arguments}")


class WarmProcess:
    """A command that runs in a fork of the server, with what it prints in files.

    Attributes:
        pid: of the fork
        returncode: None while it runs; -9 where it was killed
    """

    def __init__(
        self, path: str, command: Sequence[str], *, cwd: str | Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.returncode: int | None = None
        self._printed = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        files = [0, *(file.fileno() for file in self._printed)]
        self._server = connect(path, command, str(cwd), dict(os.environ if env is None else env), files)
        self.pid = int.from_bytes(self._server.recv(4, socket.MSG_WAITALL), "big")

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        self._server.settimeout(0)
        try:
            self._end()
        except BlockingIOError:
            return None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end: what it printed, and its errors. Once."""
        self._server.settimeout(timeout)
        self._end()
        self._server.close()
        said = []
        for file in self._printed:
            with file:
                file.seek(0)
                said.append(file.read())
        return said[0], said[1]

    def send_signal(self, sign: int) -> None:
        os.kill(self.pid, sign)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self) -> None:
        if self.returncode is None:
            code = self._server.recv(1)
            self.returncode = code[0] if code else -signal.SIGKILL


def connect(
    path: str, command: Sequence[str], folder: str, environment: dict[str, str], files: list[int]
) -> socket.socket:
    """Have a command run; the socket then gives its pid and, when it ends, its exit code."""
    wanted = {"command": [str(word) for word in command], "folder": folder, "environment": environment}
    text = json.dumps(wanted).encode()
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    server.sendall(len(text).to_bytes(4, "big"))
    socket.send_fds(server, [b"f"], files)
    server.sendall(text)
    return server


def ask(path: str, *command: str) -> int:
    """Have a command run here; its exit code."""
    with connect(path, command, os.getcwd(), dict(os.environ), [0, 1, 2]) as server:
        server.recv(4, socket.MSG_WAITALL)
        code = server.recv(1)
    return code[0] if code else 1  # it was killed


if __name__ == "__main__":
    sys.exit(ask(*sys.argv[2:]) if sys.argv[1] == "ask" else serve(sys.argv[2], int(sys.argv[3])))
