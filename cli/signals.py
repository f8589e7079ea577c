"""Ctrl-C and the end of a batch job: the first stops in order, the second at once."""

import os
import signal
import threading
from types import FrameType

from featcache.errors import Interrupted

_LINE = b"\nstopped at once; what was finished is kept, and the same command goes on from there\n"
_AGAIN = 0.05  # [s]
_stopping = False


def install() -> None:
    """Stop on SIGINT and SIGTERM, which batch systems send, alike."""
    global _stopping
    _stopping = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(signum: int, frame: FrameType | None) -> None:
    global _stopping
    if _stopping:
        # Whoever asks twice does not want to wait for threads; files are whole or not there at any instant.
        os.write(2, _LINE)
        os._exit(Interrupted.exit_code)
    if _importing(frame):
        # An extension module that is cut off half loaded stays so, or swallows the exception.
        later = threading.Timer(_AGAIN, os.kill, (os.getpid(), signum))
        later.daemon = True
        later.start()
        return
    _stopping = True
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether this happens while a module is loaded."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
