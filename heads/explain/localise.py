"""Where on the token map a prototype head found a class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from featcache.heads.matching import match
from featcache.heads.prototypical import ProtoFloat

if TYPE_CHECKING:
    from featcache.cache import TokenCache

BLOCK = 64  # clips read at a time


@torch.inference_mode()
def usual_scores(head: ProtoFloat, cache: "TokenCache", rows: Sequence[int]) -> Tensor:
    """Each prototype's score on the average of these clips, (P,): what says nothing about a clip."""
    total = torch.zeros(len(head.prototypes))
    for first in range(0, len(rows), BLOCK):
        total += _scores(head, cache, rows[first : first + BLOCK])[0].sum(dim=0)
    return total / len(rows)


@torch.inference_mode()
def evidence(head: ProtoFloat, cache: "TokenCache", row: int, usual: Tensor) -> Tensor:
    """What each token of a clip said for each class, in logits.

    A logit is ``b + sum_p W_cp s_p`` and every score ``s_p`` is the cosine of one token, the winner
    of prototype p. Where that prototype matches better than usual, ``W_cp (s_p - usual_p)`` is put
    where its winner lies. Where it matches worse, something is missing from the clip, and that has
    no place (leaving it out finds more events, too: docs/demo.md).

    Args:
        usual: (P,) from ``usual_scores``, of training clips

    Shape:
        - output: (C, F, T)
    """
    scores, index = _scores(head, cache, [row])
    added = head.classify.weight * (scores[0] - usual).clamp(min=0)  # (C, P)
    F, T = cache.grid
    maps = torch.zeros(len(added), F * T).index_add_(1, index[0], added)
    return maps.view(-1, T, F).transpose(1, 2)  # tokens lie time-major


def points_into(
    evidence_map: Tensor, onset: float, offset: float, column_seconds: float
) -> tuple[bool, float]:
    """Whether the token with most evidence lies, in time, where an event is; and how likely by chance.

    A token lies in an event if any part of its column does (the pointing game, in time alone).

    Args:
        evidence_map: of the event's class, (F, T)
        onset, offset: [s] of the event
        column_seconds: [s] between token columns

    Returns:
        Whether it does, and the share of columns that would do.

    Source:
        Zhang et al. 2016, https://arxiv.org/abs/1608.00507

    >>> points_into(torch.tensor([[0.0, 2.0, 0.0, 0.0]]), 0.5, 1.5, column_seconds=1.0)
    (True, 0.5)
    """
    starts = column_seconds * torch.arange(evidence_map.shape[1])
    inside = (starts < offset) & (starts + column_seconds > onset)  # (T,)
    return bool(inside[evidence_map.amax(dim=0).argmax()]), float(inside.float().mean())


def _scores(head: ProtoFloat, cache: "TokenCache", rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    tokens, _, valid = head.standardized(cache.tokens(rows), None, cache.mask(rows))
    assert tokens is not None  # they went in
    return match(tokens, head.prototypes_for_match(), None if head.use_padding else valid)
