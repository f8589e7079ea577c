"""Where the time of a run goes: seconds by stage, and a trace that Chrome and Perfetto show."""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MOST_EVENTS = 200_000  # of a trace: 40 MB; later ones are counted and not kept


class Spans:
    """Seconds by name, taken in any thread.

    Attributes:
        seconds: name -> [s] in all threads together
        events: of the trace, where they are kept
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.events: list[dict[str, Any]] = []
        self._keep, self._lock, self._began = keep, threading.Lock(), time.perf_counter()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the block's time under a name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, began, time.perf_counter())

    def _add(self, name: str, began: float, ended: float) -> None:
        with self._lock:
            self.seconds[name] += ended - began
            if self._keep and len(self.events) < MOST_EVENTS:
                self.events.append(
                    {"name": name, "ph": "X", "pid": os.getpid(), "tid": threading.current_thread().name,
                     "ts": round((began - self._began) * 1e6, 1), "dur": round((ended - began) * 1e6, 1)}
                )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write the trace in Chrome's format of trace events; times are in microseconds.

        Source:
            https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
        """
        path.write_text(json.dumps({"traceEvents": self.events, "displayTimeUnit": "ms"}), encoding="utf-8")
