"""Threads that share a loop."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial


class Threads:
    """Up to ``count`` threads, started when first needed and anew in a forked child."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._executor: ThreadPoolExecutor | None = None
        self._pid = -1

    def share(self, function: Callable[[int], None], number: int, threads: int | None = None) -> None:
        """Call ``function`` with 0..number-1; the caller's thread takes its part.

        Args:
            threads: of them, fewer than there are if given
        """
        threads = min(threads or self._count, self._count, number)

        def part(first: int) -> None:
            for i in range(first, number, threads):
                function(i)

        others = [self.submit(partial(part, first)) for first in range(1, threads)]
        if number:
            part(0)
        for other in others:
            other.result()

    def submit(self, function: Callable[[], None]) -> Future[None]:
        """Run ``function`` in the background."""
        # A forked child inherits the object but none of its threads.
        if self._executor is None or self._pid != os.getpid():
            self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="featcache-reader")
            self._pid = os.getpid()
        return self._executor.submit(function)
