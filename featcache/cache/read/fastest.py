"""Which of a few ways of doing the same work is fastest here, found while the work is done."""

import time
from collections.abc import Callable

from featcache.cores import cores

_TURNS = 4  # of each way; the first is not counted: threads start in it
_CLEARLY = 0.95  # of the time of the way before: a later way costs more, so it has to win by something


class Fastest:
    """Tries each way a few times in turn, then stays with the one whose best turn was fastest.

    Args:
        ways: numbers, the cheapest first

    Attributes:
        chosen: the way that stays; None while it is looked for
    """

    def __init__(self, ways: tuple[int, ...], clock: Callable[[], float] = time.perf_counter) -> None:
        self._ways, self._clock = ways, clock
        self._rates: dict[int, list[float]] = {way: [] for way in ways}
        self.chosen: int | None = ways[0] if len(ways) == 1 else None

    def run(self, work: Callable[[int], None], amount: int) -> None:
        """Do some work in one of the ways.

        Args:
            work: is given the way
            amount: of work, in a unit that is the same each time
        """
        if self.chosen is not None:
            work(self.chosen)
            return
        way = min(self._ways, key=lambda way: len(self._rates[way]))
        start = self._clock()
        work(way)
        self._rates[way].append((self._clock() - start) / max(amount, 1))
        if all(len(rates) >= _TURNS for rates in self._rates.values()):
            self.chosen = self._ways[0]
            for other in self._ways[1:]:
                if self._best(other) < _CLEARLY * self._best(self.chosen):
                    self.chosen = other

    def _best(self, way: int) -> float:
        return min(self._rates[way][1:])


def numbers_of_threads() -> tuple[int, ...]:
    """1, 2, 4, 8, as far as there are cores for them."""
    return tuple(count for count in (1, 2, 4, 8) if count <= cores())
