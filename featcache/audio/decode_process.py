"""Decoding in processes of its own, which can be stopped: a codec may hang, or take its process with it.

A thread that hangs cannot be ended, and a segmentation fault in it ends the run. It costs one more copy of
each waveform.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from featcache.audio.load import Decoded
from featcache.audio.mixup import decode_clip, told
from featcache.audio.recording import OpenRecordings
from featcache.errors import AudioError
from featcache.manifest import Clip
from featcache.manifest.files import printable

START_SECONDS = 120.0  # that a process may take until it is ready
ENDING_SECONDS = 1.0  # in which one whose pipe is closed ends by itself, with an exit code of its own
_MAIN = "from featcache.audio.decode_process import serve; serve({})"

Decode = Callable[..., Decoded]


class DecodeProcesses:
    """One process for each thread that asks, started when it first does.

    Args:
        timeout: [s] after which a clip is given up
        decode: a function of a module, called as ``decode_clip`` is
    """

    def __init__(self, timeout: float, decode: Decode = decode_clip) -> None:
        self._timeout, self._decode = timeout, decode
        self._local = threading.local()
        self._all: list[_Child] = []
        self._closed = False

    def start(self) -> None:
        """Have the process of this thread ready."""
        with suppress(EOFError, OSError, TimeoutError):  # whatever is wrong with it, a clip will say
            self._own_child().ready()

    def decode(self, clip: Clip, partners: Mapping[str, Clip], **settings: Any) -> Decoded:
        """A clip's waveform, as ``decode_clip`` gives it.

        A process that dies may have been killed by somebody else, so its clip is tried once more.

        Raises:
            AudioError: as ``decode_clip``; or the process died twice, or took too long.
        """
        sources = clip.variant.ids if clip.variant else ()
        asked = (clip, {name: partners[name] for name in sources if name in partners}, settings)
        for _ in range(2):
            child = self._own_child()
            try:
                return child.ask(asked, self._timeout)
            except TimeoutError:
                child.stop()
                raise AudioError(
                    f"{printable(clip.path)}: decoding took longer than {self._timeout:g} s; repair or "
                    "remove it, or allow more"
                ) from None
            except (EOFError, OSError):
                code = child.stop(patience=ENDING_SECONDS)
                if self._closed:
                    break
        raise AudioError(
            f"{printable(clip.path)}: decoding ended its process twice (exit code {code}); repair or remove "
            "it"
        )

    def close(self) -> None:
        """End all processes."""
        self._closed = True
        for child in self._all:
            child.stop()

    def _own_child(self) -> "_Child":
        child: _Child | None = getattr(self._local, "child", None)
        if child is None or child.stopped:
            child = self._local.child = _Child(self._decode)
            self._all.append(child)
        return child


class _Child:
    """A process that decodes, seen from here."""

    def __init__(self, decode: Decode) -> None:
        self._ours, theirs = Pipe()
        self.stopped = False
        with theirs:
            # A session of its own: Ctrl-C is for the parent, which lets what is being decoded go.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _MAIN.format(theirs.fileno())], pass_fds=[theirs.fileno()],
                start_new_session=True, stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        self._ours.send(decode)
        self._ready = False

    def ready(self) -> None:
        if not self._ready:
            self._wait(START_SECONDS)
            self._ours.recv()
            self._ready = True

    def ask(self, asked: Any, timeout: float) -> Decoded:
        self.ready()
        self._ours.send(asked)
        self._wait(timeout)
        answer, cut = self._ours.recv()
        if isinstance(answer, str):
            raise AudioError(answer)
        samples = torch.empty(answer)
        self._ours.recv_bytes_into(samples.numpy().data.cast("B"))
        return Decoded(samples, cut)

    def stop(self, patience: float = 0.0) -> int:
        """Its exit code; that of its own where it ends by itself within so many seconds."""
        self.stopped = True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        code = self._process.wait()
        self._ours.close()
        return code

    def _wait(self, seconds: float) -> None:
        if not self._ours.poll(seconds):
            raise TimeoutError


def serve(descriptor: int) -> None:
    """Decode what the parent asks for, until it goes away."""
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    parent, recordings = Connection(descriptor), OpenRecordings()
    decode: Decode = parent.recv()
    parent.send("ready")
    while True:
        try:
            clip, partners, settings = parent.recv()
        except EOFError:
            return
        try:
            with told(clip):
                found = decode(clip, partners, recordings=recordings, **settings)
        except AudioError as error:
            parent.send((str(error), 0.0))
        else:
            _send(parent, found.waveform, found.cut_seconds)


def _send(parent: Connection, waveform: Tensor, cut: float) -> None:
    parent.send((len(waveform), cut))
    parent.send_bytes(waveform.float().contiguous().numpy().data.cast("B"))


def _leave_with(parent: int) -> None:
    """End this process when its parent has: one that hangs in a codec would stay for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
