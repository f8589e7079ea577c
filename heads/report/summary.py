"""Results in a few numbers: mean and spread over seeds and folds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from featcache.heads.report.results import Result


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one encoder reached on one data set with one head.

    ``sd`` is over seeds; in cross-validation over folds (each fold's mean over seeds); zero for
    a single run.
    """

    encoder: str
    dataset: str
    head: str
    metric: str
    split: str  # test, or valid where there is no test
    mean: float  # in 0..1
    sd: float
    runs: int
    folds: int
    results: tuple[Result, ...]

    def text(self, digits: int = 2) -> str:
        """Per cent with spread, as tables print it.

        >>> Cell(encoder="e", dataset="d", head="h", metric="mAP", split="test", mean=0.5, sd=0.01,
        ...     runs=5, folds=1, results=()).text()
        '50.00 ± 1.00'
        """
        spread = f" ± {100 * self.sd:.{digits}f}" if self.runs > 1 else ""
        return f"{100 * self.mean:.{digits}f}{spread}"


def cells(results: Iterable[Result]) -> list[Cell]:
    """Results that differ in seed or fold alone become one cell, in order of first appearance."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.encoder, result["dataset"], result.label), []).append(result)
    return [_cell(key, own) for key, own in groups.items()]


def _cell(key: tuple[str, str, str], own: Sequence[Result]) -> Cell:
    by_fold: dict[object, list[float]] = {}
    for result in own:
        by_fold.setdefault(result["fold"], []).append(result.value)
    means = [statistics.fmean(values) for values in by_fold.values()]
    spread = means if len(means) > 1 else next(iter(by_fold.values()))
    return Cell(
        encoder=key[0], dataset=key[1], head=key[2], metric=own[0]["metric"],
        split="test" if own[0]["test"] else "valid", mean=statistics.fmean(means),
        sd=statistics.stdev(spread) if len(spread) > 1 else 0.0, runs=len(own), folds=len(means),
        results=tuple(own),
    )  # fmt: skip


def summary_lines(results: Sequence[Result]) -> list[str]:
    """An aligned table for the terminal: one row a cell."""
    header = ("encoder", "data set", "head", "score", "%", "epoch", "s")
    rows = [header]
    for cell in cells(results):
        epochs = sorted({result["epoch"] for result in cell.results})
        chosen = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
        seconds = max(result["seconds"] for result in cell.results)
        over = f" over {cell.folds} folds" if cell.folds > 1 else ""
        runs = f" of {cell.runs} seeds" if cell.runs > 1 and cell.folds == 1 else over
        score = f"{cell.split} {cell.metric}{runs}"
        rows.append((cell.encoder, cell.dataset, cell.head, score, cell.text(), chosen, f"{seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
