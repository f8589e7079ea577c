"""Where the time of a run goes: seconds by stage, and a trace that Chrome and Perfetto show."""

import json
import logging
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)
MOST_EVENTS = 200_000  # of a trace: 40 MB; later ones are counted and not kept


class Span:
    """A block whose time is counted: entered several times for each clip, so no generator."""

    __slots__ = ("_began", "_name", "_spans")

    def __init__(self, spans: "Spans", name: str) -> None:
        self._spans, self._name = spans, name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._spans.add(self._name, self._began, time.perf_counter())


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
        self._left_out = 0

    def span(self, name: str) -> "Span":
        """Count the block's time under a name."""
        return Span(self, name)

    def add(self, name: str, began: float, ended: float) -> None:
        """Count a time of the performance counter [s]."""
        with self._lock:
            self.seconds[name] += ended - began
            if not self._keep:
                return
            if len(self.events) >= MOST_EVENTS:
                self._left_out += 1
            else:
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
        if self._left_out:
            _log.warning(
                "%s has the first %s events; %s later ones are in the seconds alone",
                path, f"{MOST_EVENTS:,}", f"{self._left_out:,}",
            )  # fmt: skip
