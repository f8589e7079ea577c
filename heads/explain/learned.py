"""What the prototypes of a head have learned: their best train patches, and how often they fire."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.heads.explain.localise import BLOCK, prototype_scores
from featcache.heads.explain.opened import Opened
from featcache.heads.prototypical import ProtoFloat

ALIKE = 0.9  # cosine of two prototypes from which on they are shown as one
QUIET = 0.95  # a prototype fires above the score that this share of other classes' train clips stays below


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The token of a train clip that a prototype is most like."""

    clip: str
    row: int  # of the grid: frequency
    column: int  # time
    score: float  # cosine


@dataclass(kw_only=True)
class Prototype:
    """One prototype as a class reads it."""

    number: int
    weight: float
    alike: list[int]  # others of its class that are near-duplicates, shown with it
    patches: list[Patch] = field(default_factory=list)
    fires: dict[str, float] = field(default_factory=dict)  # "train own", "train other", … -> share of clips


@torch.inference_mode()
def scores_of(opened: Opened, ids: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Each prototype's score and winning token on these clips: (n, P) each."""
    assert isinstance(opened.head, ProtoFloat)
    assert opened.cache is not None
    rows = [opened.rows[name] for name in ids]
    parts = [
        prototype_scores(opened.head, opened.cache, rows[first : first + BLOCK], opened.config["layer"])
        for first in range(0, len(rows), BLOCK)
    ]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def distinct(prototypes: Tensor, numbers: Sequence[int]) -> list[list[int]]:
    """Prototypes in groups of near-duplicates, each led by the first in the order given.

    >>> distinct(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.1]]), [0, 1, 2])
    [[0, 2], [1]]
    """
    unit = nn_f.normalize(prototypes, dim=-1)
    groups: list[list[int]] = []
    for number in numbers:
        for group in groups:
            if float(unit[number] @ unit[group[0]]) >= ALIKE:
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def prototypes_of(
    opened: Opened,
    label: int,
    train: tuple[Sequence[str], Tensor, Tensor],
    test: tuple[Sequence[str], Tensor],
    *,
    most: int,
    patches: int,
) -> tuple[list[Prototype], int]:
    """The prototypes with most weight for a class, and how many distinct ones have a positive weight.

    Args:
        train: ids, scores and winners, as `scores_of` gives them
        test: ids and scores
        most, patches: how many prototypes, and train patches of each
    """
    head = opened.head
    assert isinstance(head, ProtoFloat)
    weights = head.classify.weight[label].detach()
    order = [int(number) for number in weights.argsort(descending=True) if weights[number] > 0]
    groups = distinct(head.prototypes_for_match().detach(), order)
    name = opened.classes[label]
    present = [np.array([name in opened.clips[clip].labels for clip in ids]) for ids in (train[0], test[0])]
    found = []
    for group in groups[:most]:
        number = group[0]
        own = Prototype(number=number, weight=float(weights[number]), alike=group[1:])
        own.patches = _best(opened, train, number, patches)
        own.fires = _fires(train[1][:, number].numpy(), test[1][:, number].numpy(), *present)
        found.append(own)
    return found, len(groups)


def _best(
    opened: Opened, train: tuple[Sequence[str], Tensor, Tensor], number: int, patches: int
) -> list[Patch]:
    """The train patches that a prototype is most like, no two of one recording."""
    ids, scores, winners = train
    assert opened.cache is not None
    F, _ = opened.cache.grid
    found: list[Patch] = []
    recordings: set[str] = set()
    for place in scores[:, number].argsort(descending=True).tolist():
        clip = opened.clips[ids[place]]
        recording = clip.group or str(clip.path)
        if recording not in recordings:
            recordings.add(recording)
            column, row = divmod(int(winners[place, number]), F)
            found.append(Patch(clip=clip.id, row=row, column=column, score=float(scores[place, number])))
        if len(found) == patches:
            break
    return found


def _fires(
    train: "np.ndarray[tuple[int], np.dtype[np.float32]]",
    test: "np.ndarray[tuple[int], np.dtype[np.float32]]",
    train_own: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    test_own: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
) -> dict[str, float]:
    """The share of clips above the level that other classes' train clips rarely reach."""
    others = train[~train_own]
    level = np.quantile(others, QUIET) if len(others) else -np.inf
    shares = {}
    for split, scores, own in (("train", train, train_own), ("test", test, test_own)):
        for which, chosen in (("own", own), ("other", ~own)):
            shares[f"{split} {which}"] = (
                float((scores[chosen] > level).mean()) if chosen.any() else float("nan")
            )
    return shares
