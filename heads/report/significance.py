"""Is one head better than another, or were the test clips lucky? The paired bootstrap.

Both heads are scored on the same redrawn clips, so what clips they share cancels out. It covers
the luck of the test clips; the luck of training is in the spread over seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr

from featcache.heads.report.bootstrap import Floats, redrawn
from featcache.heads.report.summary import Cell, fragments

DRAWS = 2000
RESOLVED = 10  # draws beyond zero from which a share of the draws is a p value
Groups = dict[tuple[str, ...], dict[str, str]]  # test ids -> id -> recording
Pools = dict[tuple[str, ...], frozenset[str]]  # test ids -> recordings


@dataclass(frozen=True, kw_only=True)
class Difference:
    """``best`` minus ``other`` on one data set with one encoder."""

    encoder: str
    dataset: str
    best: str
    other: str
    mean: float  # in 0..1
    low: float  # of the 95 % interval over test clips
    high: float
    p: float  # two-sided, over test clips, Holm-corrected over the table
    best_sd: float | None  # over seeds (folds): None for a single run
    other_sd: float | None
    by: str = "clip"  # what was redrawn: clip, or recording


def differences(cells: Sequence[Cell], *, draws: int = DRAWS, seed: int = 0) -> list[Difference]:
    """The best head of each encoder and data set against each other head, by paired bootstrap.

    Each fold is redrawn for itself, test sets that overlap by one draw for all; where scores name the
    recording of each clip, recordings are drawn whole. Cells without a score or saved test scores, or without
    some of the folds, are left out, and numbers of shots are compared each for itself.

    Source:
        Efron & Tibshirani 1993, chapter 16; Holm 1979 for the correction
    """
    families: dict[tuple[str, str, int | None], list[Cell]] = {}
    parts = fragments(cells)
    for cell in cells:
        if not cell.known or id(cell) in parts:
            continue
        if all((result.get("files") or {}).get("scores") for result in cell.results):
            families.setdefault(_family_of(cell), []).append(cell)
    found = [gap for own in families.values() for gap in _family(own, draws, seed)]
    corrected = holm([gap.p for gap in found])
    return [replace(gap, p=p) for gap, p in zip(found, corrected, strict=True)]


def left_out(cells: Sequence[Cell], found: Sequence[Difference]) -> list[Cell]:
    """Heads with a score that could not be held against the best one of their family."""
    named = {(gap.encoder, gap.dataset, head) for gap in found for head in (gap.best, gap.other)}
    compared = [(cell.encoder, cell.dataset, cell.head) in named for cell in cells]
    families = {_family_of(cell) for cell, inside in zip(cells, compared, strict=True) if inside}
    parts = fragments(cells)
    outside = [cell for cell, inside in zip(cells, compared, strict=True) if cell.known and not inside]
    return [cell for cell in outside if id(cell) not in parts and _family_of(cell) in families]


def _family_of(cell: Cell) -> tuple[str, str, int | None]:
    """Encoder, data set and shots: heads that agree in them are compared."""
    return cell.encoder, cell.dataset, cell.results[0].shots


def _family(own: Sequence[Cell], draws: int, seed: int) -> list[Difference]:
    best, *others = sorted(own, key=lambda cell: -cell.mean)
    if not others:
        return []
    groups, pools = _recordings(own)
    top, right = _drawn(best, groups, pools, draws, seed)
    found = []
    for other in others:
        rest, others_right = _drawn(other, groups, pools, draws, seed)
        if rest.keys() != top.keys():
            continue
        gap = np.mean([top[key] - rest[key] for key in top], axis=0)  # (draws,)
        units = len({name for key in top for name in pools[key]})
        apart = sum(right[name] != others_right[name] for name in right) if right else units
        low, high = np.quantile(gap, [0.025, 0.975])
        found.append(
            Difference(
                encoder=best.encoder, dataset=best.dataset, best=best.head, other=other.head,
                mean=best.mean - other.mean, low=float(low), high=float(high),
                p=p_value(gap, units, apart),
                best_sd=best.sd, other_sd=other.sd,
                by="recording" if all(key in groups for key in top) else "clip",
            )
        )  # fmt: skip
    return found


def p_value(gap: Floats, units: float = math.inf, apart: float = math.inf) -> float:
    """Two-sided p of no difference, from redrawn differences (draws,).

    The share of draws on the other side of zero; where fewer than ten lie there, Student's tail at
    mean over sd of the draws (or the share, if that is smaller). A share alone ends at 2 / draws,
    which Holm's correction over 60 comparisons of 1,000 draws makes .12. More draws would mend that at
    a cost that grows with the square of the number of heads, for a tail that the bootstrap knows no
    better than Student: its own error (of the order of one over the root of the number of clips)
    is far larger there than p. Nor is p ever below that of the sign test if all recordings that tell the
    heads apart spoke for one of them.

    Args:
        units: how many recordings (or clips) were redrawn
        apart: of how many of them the heads' answers differ

    >>> p_value(np.array([1.0, -1.0, 1.0, -1.0] * 100))
    1.0
    """
    return max(_tail(gap, units), 2.0 ** (1 - apart) if apart else 1.0)


def _tail(gap: Floats, units: float) -> float:
    beyond = int(min((gap <= 0).sum(), (gap >= 0).sum()))
    share = min(1.0, 2 * (1 + beyond) / (len(gap) + 1))
    spread = float(gap.std())
    if beyond >= RESOLVED or not spread:
        return share
    freedom = min(max(units - 1, 1), 1e9)  # so large is the normal
    return min(share, float(2 * stdtr(freedom, -abs(float(gap.mean())) / spread)))


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


def _recordings(own: Sequence[Cell]) -> tuple[Groups, Pools]:
    """The recordings of each test set that any result knows them of, and what each test set is redrawn from.

    That is its recordings (or clips), and those of all that it shares some with. Folds share none, and each
    is redrawn for itself. Test sets that were drawn by several seeds overlap: redrawn apart they would count
    a recording as a new one each time, and intervals would be too narrow.
    """
    groups: Groups = {}
    keys: set[tuple[str, ...]] = set()
    for result in (result for cell in own for result in cell.results):
        ids, known = result.scores()[0], result.groups()
        keys.add(key := tuple(sorted(ids)))
        if known is not None:
            groups.setdefault(key, dict(zip(ids, known, strict=True)))
    sets = {key: frozenset(groups[key].values() if key in groups else key) for key in keys}
    apart: list[frozenset[str]] = []
    for names in sets.values():
        touching = [pool for pool in apart if pool & names]
        apart = [pool for pool in apart if not pool & names] + [names.union(*touching)]
    return groups, {key: next(pool for pool in apart if pool & names) for key, names in sets.items()}


class _Drawn(NamedTuple):
    """A head on its test sets."""

    scores: dict[tuple[str, ...], Floats]  # of each one redrawn, mean over seeds
    right: dict[str, float]  # recording -> right answers, mean over seeds; of accuracies alone


def _drawn(cell: Cell, groups: Groups, pools: Pools, draws: int, seed: int) -> _Drawn:
    scores: dict[tuple[str, ...], list[Floats]] = {}
    right: dict[str, list[float]] = {}
    for result in cell.results:
        ids, logits, targets = result.scores()
        key = tuple(sorted(ids))
        own = [groups[key][clip] for clip in ids] if key in groups else None
        found = redrawn(ids, logits, targets, result["metric"], draws, own, seed, pools[key])
        scores.setdefault(key, []).append(found)
        if cell.metric == "accuracy":
            names, of = np.unique(own or ids, return_inverse=True)
            counts = np.bincount(of, weights=logits.argmax(axis=1) == targets)
            for name, count in zip(names.tolist(), counts.tolist(), strict=True):
                right.setdefault(name, []).append(count)
    return _Drawn(
        {key: np.mean(values, axis=0) for key, values in scores.items()},
        {name: fmean(counts) for name, counts in right.items()},
    )
