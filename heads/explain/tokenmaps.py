"""Which tokens of a clip a head looked at, whatever its kind."""

from typing import Literal

import torch
from torch import Tensor

from featcache.errors import InputError
from featcache.heads.abmilp import Abmilp
from featcache.heads.attentive import Attentive, EfficientProbing
from featcache.heads.base import Head
from featcache.heads.matching import match
from featcache.heads.prototypical import Proto, ProtoFloat
from featcache.heads.simpool import SimPool

Kind = Literal["prototypes", "attention", "activation"]
ATTENTIVE = (Attentive, EfficientProbing, SimPool, Abmilp)


def kind_of_map(head: Head) -> Kind:
    """What there is to show of a head.

    Raises:
        InputError: nothing, for it reads the tokens in a way that has no map of its own.
    """
    if isinstance(head, ProtoFloat | Proto):
        return "prototypes"
    if isinstance(head, ATTENTIVE):
        return "attention"
    if head.config["name"] in ("linear", "linear-mean", "mlp"):
        return "activation"
    raise InputError(
        f"a head {head.config['name']!r} has no map of its tokens; explain takes prototypical heads, "
        "linear, linear-mean, mlp, and the attentive mhca, ep, simpool and abmilp"
    )


def class_weights(head: ProtoFloat | Proto) -> Tensor:
    """What a unit of each prototype's score adds to each logit, (C, P)."""
    if isinstance(head, ProtoFloat):
        return head.classify.weight.detach()
    C, J = head.weight.shape
    own = head.weight.detach().relu()
    return (torch.eye(C).unsqueeze(-1) * own).reshape(C, C * J)


@torch.inference_mode()
def winners(
    head: ProtoFloat | Proto, tokens: Tensor, cls: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Each prototype's best cosine in each clip, and the token that has it: both (B, P)."""
    own, vector, valid = head.standardized(tokens, cls, valid)
    assert own is not None  # they went in
    valid = None if head.use_padding else valid
    scores, index = match(head.tokens_for_match(own, vector, valid), head.prototypes_for_match(), valid)
    return (scores.relu() if isinstance(head, Proto) else scores), index


def evidence_of(
    head: ProtoFloat | Proto, scores: Tensor, index: Tensor, usual: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Evidence (C, F, T) of one clip's winners (P,), as ``localise.evidence`` has it."""
    F, T = grid
    added = class_weights(head) * (scores - usual).clamp(min=0)
    maps = torch.zeros(len(added), F * T).index_add_(1, index, added)
    return as_grid(maps, grid)


def as_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values (..., N) of time-major tokens as (..., F, T)."""
    F, T = grid
    return maps.reshape(*maps.shape[:-1], T, F).transpose(-1, -2)


@torch.inference_mode()
def attention(head: Head, tokens: Tensor, valid: Tensor | None) -> Tensor:
    """How much each token of clips weighs, (B, N): the mean over queries; sums to one."""
    assert isinstance(head, ATTENTIVE)
    own, _, valid = head.standardized(tokens, None, valid)
    assert own is not None  # they went in
    dtype = next(head.parameters()).dtype
    weights = head.attention(own.to(dtype), None if head.use_padding else valid)
    return weights.mean(dim=1) if weights.ndim == 3 else weights


@torch.inference_mode()
def activation(head: Head, tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Each token taken for the whole clip: its logits, (B, C, N); zero at padding.

    For a linear head on the mean token the average over valid tokens is the clip's logit (class
    activation mapping, Zhou et al. 2016, arXiv 1512.04150).
    """
    B, N, D = tokens.shape
    logits: Tensor = head(None, tokens.reshape(B * N, D).float(), None)
    maps = logits.view(B, N, -1).transpose(1, 2)
    return maps if valid is None else maps.masked_fill(~valid.unsqueeze(1), 0.0)
