"""What single tokens of a clip say for a class, or how they are weighed, for any head that reads tokens."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from featcache.heads import attentive
from featcache.heads.base import Head, Inputs
from featcache.heads.prototypical import ProtoFloat

PROTOTYPES, ATTENTION, ACTIVATION = "evidence of prototypes", "attention", "class activation"


def kind_of_map(head: Head) -> str:
    """What the maps of a head show.

    >>> from featcache.heads import build_head
    >>> [kind_of_map(build_head(name, 8, 3)) for name in ("protobin", "mhca", "linear")]
    ['evidence of prototypes', 'attention', 'class activation']
    """
    if isinstance(head, ProtoFloat):
        return PROTOTYPES
    weighed = (attentive.Attentive, attentive.EfficientProbing, attentive.SimPool, attentive.Abmilp)
    return ATTENTION if isinstance(head, weighed) else ACTIVATION


def attention_map(head: Head, inputs: Inputs, grid: tuple[int, int]) -> Tensor:
    """The weight of every token, the mean over queries: (F, T), which sums to one."""
    with torch.no_grad(), _recorded() as weights:
        head(*inputs)
    (own,) = weights
    return _as_grid(own[0].reshape(-1, own.shape[-1]).mean(dim=0), grid)


def activation_maps(head: Head, inputs: Inputs, grid: tuple[int, int], labels: Sequence[int]) -> Tensor:
    """How much each token adds to the logit of each class, (len(labels), F, T).

    Input times gradient, summed over the width: of a head that is linear in its tokens the class activation
    map itself, whose sum is the logit less its bias; of others its first-order part.

    Source:
        Zhou et al. 2016, https://arxiv.org/abs/1512.04150
    """
    tokens, cls, valid = inputs
    with torch.enable_grad():
        if tokens is None:
            raise ValueError("the head reads no tokens")
        own = tokens.detach().clone().requires_grad_()
        logits = head(own, cls, valid)[0]
        maps = []
        for label in labels:
            (gradient,) = torch.autograd.grad(logits[label], own, retain_graph=True)
            maps.append(_as_grid((gradient * own).sum(dim=-1)[0].detach(), grid))
    return torch.stack(maps)


def mean_maps(
    head: Head, tokens: Tensor, valid: Tensor, grid: tuple[int, int], labels: Sequence[int]
) -> Tensor:
    """As `activation_maps` of a head that reads the mean of the tokens (1, N, D) alone."""
    with torch.enable_grad():
        vector = tokens[valid].mean(dim=0, keepdim=True).requires_grad_()
        logits = head(None, vector, None)[0]
        maps = []
        for label in labels:
            (gradient,) = torch.autograd.grad(logits[label], vector, retain_graph=True)
            shares = (tokens[0] @ gradient[0]) / valid.sum() * valid[0]
            maps.append(_as_grid(shares.detach(), grid))
    return torch.stack(maps)


def _as_grid(values: Tensor, grid: tuple[int, int]) -> Tensor:
    F, T = grid
    return values.view(T, F).T  # tokens lie time-major


@contextmanager
def _recorded() -> Iterator[list[Tensor]]:
    """The attention weights that a head computes within."""
    weights: list[Tensor] = []
    original = attentive.attention_weights

    def record(logits: Tensor, valid: Tensor | None) -> Tensor:
        weights.append(original(logits, valid))
        return weights[-1]

    attentive.attention_weights = record
    try:
        yield weights
    finally:
        attentive.attention_weights = original
