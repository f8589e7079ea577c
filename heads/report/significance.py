"""Is one head better than another, or were the test clips lucky? The paired bootstrap.

Both heads are scored on the same redrawn clips, so what clips they share cancels out. It covers
the luck of the test clips; the luck of training is in the spread over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.heads.report.results import Result
from featcache.heads.report.summary import Cell

Floats = NDArray[np.float64]
BLOCK = 1 << 24  # weights held at once


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``best`` minus ``other`` on one data set with one encoder."""

    encoder: str
    dataset: str
    best: str
    other: str
    mean: float  # in 0..1
    low: float  # of the 95 % interval
    high: float
    p: float  # two-sided, Holm-corrected over the table


def differences(cells: Sequence[Cell], *, draws: int = 1000, seed: int = 0) -> list[Difference]:
    """The best head of each encoder and data set against each other head, by paired bootstrap.

    Cells without saved test scores, or tested on other clips, are left out.

    Source:
        Efron & Tibshirani 1993, chapter 16; Holm 1979 for the correction
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if all(result["files"].get("scores") for result in cell.results):
            groups.setdefault((cell.encoder, cell.dataset), []).append(cell)
    found = []
    for (encoder, dataset), own in groups.items():
        best, *others = sorted(own, key=lambda cell: -cell.mean)
        top = _drawn(best, draws, seed) if others else {}
        for other in others:
            rest = _drawn(other, draws, seed)
            if rest.keys() != top.keys():
                continue
            gap = np.mean([top[key] - rest[key] for key in top], axis=0)  # (draws,)
            low, high = np.quantile(gap, [0.025, 0.975])
            p = min(1.0, 2 * (1 + min((gap <= 0).sum(), (gap >= 0).sum())) / (draws + 1))
            found.append((encoder, dataset, best, other, float(low), float(high), float(p)))
    corrected = holm([p for *_, p in found])
    return [
        Difference(encoder=encoder, dataset=dataset, best=best.head, other=other.head,
                   mean=best.mean - other.mean, low=low, high=high, p=p)
        for (encoder, dataset, best, other, low, high, _), p in zip(found, corrected, strict=True)
    ]  # fmt: skip


def holm(values: Sequence[float]) -> list[float]:
    """Correct p values for their number: the smallest by all, the next by one less, …

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(values)), key=lambda index: values[index])
    corrected, highest = [0.0] * len(values), 0.0
    for position, index in enumerate(order):
        highest = max(highest, min(1.0, (len(values) - position) * values[index]))
        corrected[index] = highest
    return corrected


def _drawn(cell: Cell, draws: int, seed: int) -> dict[tuple[str, ...], Floats]:
    """Scores of the redrawn test sets, mean over seeds; one entry for each set of test clips (fold)."""
    found: dict[tuple[str, ...], list[Floats]] = {}
    for result in cell.results:
        ids, logits, targets = result.scores()
        order = np.argsort(ids)
        redrawn = _score(result, logits[order], targets[order], draws, seed)
        found.setdefault(tuple(sorted(ids)), []).append(redrawn)
    return {key: np.mean(values, axis=0) for key, values in found.items()}


def _score(result: Result, logits: NDArray[Any], targets: NDArray[Any], draws: int, seed: int) -> Floats:
    n = len(logits)
    generator = np.random.default_rng([seed, n])
    parts = []
    size = max(1, BLOCK // n)
    for start in range(0, draws, size):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=min(size, draws - start))  # (draws, n)
        if result["metric"] == "accuracy":
            parts.append(weights @ (logits.argmax(axis=1) == targets) / n)
        else:
            parts.append(weighted_map(targets, logits, weights))
    return np.concatenate(parts)


def weighted_map(labels: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Macro mAP of test sets in which clip i occurs ``weights[d, i]`` times, (draws,).

    Shape:
        - labels, scores: (n, C)
        - weights: (draws, n)
    """
    values = np.full((labels.shape[1], len(weights)), np.nan)
    for c in range(labels.shape[1]):
        order = np.argsort(-scores[:, c], kind="stable")
        ranked, hits = scores[order, c], labels[order, c] > 0
        last = np.searchsorted(-ranked, -ranked[hits], side="right") - 1  # ties count as one step
        drawn = weights[:, order].astype(np.float64)
        positives = drawn * hits
        seen = drawn.cumsum(axis=1)[:, last]
        found = positives.cumsum(axis=1)[:, last]
        total = positives.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(seen > 0, found / seen, 0.0)
            values[c] = (positives[:, hits] * precision).sum(axis=1) / np.where(total > 0, total, np.nan)
    known = ~np.isnan(values)
    result: Floats = np.where(known, values, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return result
