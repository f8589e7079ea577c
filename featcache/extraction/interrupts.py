"""Ctrl-C and SIGTERM that wait until a few lines are done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_STOPS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[None]:
    """Let a signal that comes within the block count after it, and a second one at once.

    Signals reach the main thread alone, so in another thread there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _STOPS}

    def pass_on(number: int, frame: FrameType | None) -> None:
        if callable(handler := handlers[number]):
            handler(number, frame)

    def hold(number: int, frame: FrameType | None) -> None:
        if came:
            pass_on(number, frame)
        came.append((number, frame))

    try:
        for own in handlers:
            signal.signal(own, hold)
        yield
    finally:
        for own, handler in handlers.items():
            signal.signal(own, handler)
        for number, where in came:
            pass_on(number, where)
