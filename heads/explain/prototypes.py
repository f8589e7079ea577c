"""What each prototype stands for: its best patches, how often it fires, and which are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.heads.explain.subject import Clips
from featcache.heads.explain.tokenmaps import winners
from featcache.heads.prototypical import Proto, ProtoFloat

BLOCK = 64  # clips read at a time
ALIKE = 0.9  # cosine from which two prototypes are shown as one


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Each prototype's best patch in each clip."""

    scores: Tensor  # (n, P) cosines
    index: Tensor  # (n, P) tokens, time-major


def matches(head: ProtoFloat | Proto, clips: Clips, rows: Sequence[int]) -> Matches:
    """Read these clips once and find every prototype's winner in each."""
    found = []
    for first in range(0, len(rows), BLOCK):
        own = rows[first : first + BLOCK]
        cls = clips.cache.cls(own, clips.layer)
        vectors = clips.cache.mean(own, clips.layer) if cls is None else cls
        found.append(winners(head, clips.cache.tokens(own, clips.layer), vectors, clips.cache.mask(own)))
    return Matches(
        scores=torch.cat([pair[0] for pair in found]), index=torch.cat([pair[1] for pair in found])
    )


def best_clips(scores: Tensor, recordings: Sequence[str], count: int) -> list[int]:
    """Numbers of the clips of highest score, no two from one recording.

    >>> best_clips(torch.tensor([0.1, 0.9, 0.8, 0.5]), ["a", "b", "b", "c"], 2)
    [1, 3]
    """
    found: dict[str, int] = {}
    for number in scores.argsort(descending=True, stable=True).tolist():
        if len(found) == count:
            break
        found.setdefault(recordings[number], number)
    return list(found.values())


def firing(scores: Tensor, targets: NDArray[Any], bars: Tensor) -> NDArray[np.float64]:
    """Share of clips of each class, and of others, on which each prototype is above its bar.

    Shape:
        - scores: (n, P)
        - targets: (n, C) bool
        - bars: (P,)
        - output: (2, P, C); NaN where there is no such clip
    """
    fires = (scores > bars).double().numpy()  # (n, P)
    own = targets.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.stack([fires.T @ each / each.sum(axis=0) for each in (own, 1 - own)])


def alike(prototypes: Tensor, order: Sequence[int]) -> list[list[int]]:
    """Groups of near-duplicates: each prototype, in this order, joins the first that it is like.

    >>> alike(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]), [0, 1, 2])
    [[0, 2], [1]]
    """
    unit = nn_f.normalize(prototypes, dim=-1)
    groups: list[list[int]] = []
    for number in order:
        home = next((own for own in groups if float(unit[own[0]] @ unit[number]) > ALIKE), None)
        if home is None:
            groups.append([number])
        else:
            home.append(number)
    return groups
