"""Results in a few numbers: mean and spread over seeds and folds, and over nothing else."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featcache.heads.report.naming import names
from featcache.heads.report.results import Result
from featcache.heads.report.settings import seed_of


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one encoder reached on one data set with one head, trained in one way.

    ``sd`` is over seeds; in cross-validation over folds (each fold's mean over seeds); None for a
    single run.
    """

    encoder: str
    dataset: str
    head: str  # with the settings that tell it from others, see ``naming.names``
    metric: str
    split: str  # test, or valid where there is no test
    mean: float  # in 0..1
    sd: float | None
    runs: int
    folds: int
    results: tuple[Result, ...]
    repeats: int = 0  # runs left out because a later one has the same seed and fold

    def text(self, digits: int = 2) -> str:
        """Per cent with spread, as tables print it.

        >>> Cell(encoder="e", dataset="d", head="h", metric="mAP", split="test", mean=0.5, sd=0.01,
        ...     runs=5, folds=1, results=()).text()
        '50.00 ± 1.00'
        """
        if not self.known:
            return "–"
        spread = "" if self.sd is None else f" ± {100 * self.sd:.{digits}f}"
        return f"{100 * self.mean:.{digits}f}{spread}"

    @property
    def known(self) -> bool:
        """There is a score: a split of which no class has a clip has none."""
        return math.isfinite(self.mean)

    @property
    def tested_on(self) -> frozenset[str | None]:
        """The folds that the score is a mean over; None alone where there are none."""
        return frozenset(result["fold"] for result in self.results)

    @property
    def count(self) -> str:
        """What the mean and its spread are over: ``n=5`` seeds, or ``5 folds``."""
        return f"{self.folds} folds" if self.folds > 1 else f"n={self.runs}"

    @property
    def over(self) -> str:
        """What the spread is over: ``folds`` in cross-validation, else ``seeds``."""
        return "folds" if self.folds > 1 else "seeds"

    @property
    def solved(self) -> bool:
        """Solved to the end rather than trained by steps: no seed, no plateau."""
        return any(result.get("solved") is True for result in self.results)

    def beats(self, other: "Cell") -> bool:
        """Better by more than the larger of the two standard deviations; a single run beats nothing.

        Nor does one of other folds, which may be the easier ones.
        """
        if self.sd is None or other.sd is None or self.tested_on != other.tested_on:
            return False
        return self.mean - other.mean > max(self.sd, other.sd)


def cells(results: Iterable[Result]) -> list[Cell]:
    """Results that differ in seed or fold alone become one cell, in order of first appearance."""
    found = list(results)
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for key, result in zip(names(found), found, strict=True):
        groups.setdefault(key, []).append(result)
    return [_cell(key, own) for key, own in groups.items()]


def _cell(key: tuple[str, str, str], found: Sequence[Result]) -> Cell:
    # The same seed again (another version or device) is no further seed: the last counts.
    own = list({seed_of(result): result for result in found}.values())
    by_fold: dict[object, list[float]] = {}
    for result in own:
        by_fold.setdefault(result["fold"], []).append(result.value)
    means = [statistics.fmean(values) for values in by_fold.values()]
    spread = means if len(means) > 1 else next(iter(by_fold.values()))
    return Cell(
        encoder=key[0], dataset=key[1], head=key[2], metric=own[0]["metric"],
        split="test" if own[0]["test"] else "valid", mean=statistics.fmean(means),
        sd=_stdev(spread) if len(spread) > 1 else None, runs=len(own), folds=len(means),
        results=tuple(own), repeats=len(found) - len(own),
    )  # fmt: skip


def _stdev(values: Sequence[float]) -> float:
    # statistics.stdev raises AttributeError at NaN: the score of a class that no clip has.
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def fragments(cells: Sequence[Cell]) -> dict[int, list[str]]:
    """The folds that a cell lacks and others of its data set have, by the cell's ``id``."""
    every: dict[str, set[str]] = {}
    for cell in cells:
        every.setdefault(cell.dataset, set()).update(str(fold) for fold in cell.tested_on - {None})
    return {
        id(cell): sorted(lacking)
        for cell in cells
        if (lacking := every[cell.dataset] - {str(fold) for fold in cell.tested_on})
    }
