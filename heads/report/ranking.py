"""Who is better than whom: ranks of encoders under each head, and wins of one over another."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featcache.heads.report.summary import Cell

Axis = Literal["encoder", "head"]


@dataclass(frozen=True)
class Ranking:
    """Encoders in rows, heads in columns; rank 1 is the best, equal means share the better rank."""

    encoders: list[str]
    heads: list[str]
    rank: NDArray[np.float64]  # (encoders, heads); NaN where an encoder lacks the head
    mean: NDArray[np.float64]  # the mean score that the rank is of, in 0..1
    datasets: dict[str, list[str]]  # head -> the data sets that all its encoders have


def ranks(cells: Sequence[Cell]) -> Ranking:
    """Rank encoders per head by their mean over the data sets that all of them have."""
    encoders = list(dict.fromkeys(cell.encoder for cell in cells))
    heads = list(dict.fromkeys(cell.head for cell in cells))
    score = {(cell.encoder, cell.head, cell.dataset): cell.mean for cell in cells}
    mean = np.full((len(encoders), len(heads)), np.nan)
    shared = {}
    for column, head in enumerate(heads):
        having = [encoder for encoder in encoders if any(key[:2] == (encoder, head) for key in score)]
        sets = [{d for e, h, d in score if (e, h) == (encoder, head)} for encoder in having]
        shared[head] = sorted(set.intersection(*sets))
        for encoder in having if shared[head] else ():
            values = [score[encoder, head, dataset] for dataset in shared[head]]
            mean[encoders.index(encoder), column] = statistics.fmean(values)
    rank = np.where(np.isnan(mean), np.nan, 1 + (mean[:, None] < mean[None]).sum(axis=1))
    return Ranking(encoders, heads, rank, mean, shared)


@dataclass(frozen=True)
class Wins:
    """``count[i, j]``: in how many settings ``names[i]`` beats ``names[j]``; of ``compared[i, j]``.

    Settings in which either is a single run are not compared.
    """

    names: list[str]
    count: NDArray[np.int64]
    compared: NDArray[np.int64]


def wins(cells: Sequence[Cell], axis: Axis) -> Wins:
    """Count wins between heads (or encoders) over the settings that both have.

    A win is better by more than one standard deviation, the larger of the two; ties are omitted. It
    needs a standard deviation on both sides.
    """
    other: Axis = "encoder" if axis == "head" else "head"
    names = list(dict.fromkeys(str(getattr(cell, axis)) for cell in cells))
    spread = [cell for cell in cells if cell.sd is not None]
    known = {(getattr(cell, axis), (getattr(cell, other), cell.dataset)): cell for cell in spread}
    count = np.zeros((len(names), len(names)), dtype=np.int64)
    compared = np.zeros_like(count)
    for i, one in enumerate(names):
        for j, two in enumerate(names):
            pairs = [
                (known[one, setting], known[two, setting])
                for name, setting in known
                if name == one and (two, setting) in known
            ]
            compared[i, j] = len(pairs) if i != j else 0
            count[i, j] = sum(a.beats(b) for a, b in pairs)
    return Wins(names, count, compared)
