"""What is only a scale and a shift once a head is trained, put into the weights of its linear layer."""

import torch
from torch import Tensor

from featcache.heads.base import Head
from featcache.heads.linear import Linear
from featcache.heads.pooled import EPS, FeatureNorm, PooledHead

State = dict[str, Tensor]
COUNT = "feature_norm.num_batches"  # matters in training alone


def folded(head: Head) -> tuple[State, dict[str, str]]:
    """The weights of a head without its batch norm, and the options that now differ.

    ``W ((x - mean) / sd) + b`` is ``(W / sd) x + (b - (W / sd) mean)``, in float64 here: logits agree within
    float32 rounding. The same holds for the standardized channels of a head whose features are its
    inputs (``linear``). A norm of each clip ("layer") stays, as do channels that are standardized
    before a maximum, a cosine or attention, and the norm of a head that does more than this after it.

    Returns:
        Its state dict, and e.g. ``{"norm": "none"}``.

    >>> head = Linear(4, 3, norm="batch")
    >>> sorted(folded(head)[0]), folded(head)[1]
    (['classify.bias', 'classify.weight'], {'norm': 'none'})
    """
    state = {name: value.detach().cpu() for name, value in head.state_dict().items() if name != COUNT}
    changed: dict[str, str] = {}
    if not isinstance(head, PooledHead) or not _plain(head):
        return state, changed
    if isinstance(head.feature_norm, FeatureNorm):
        variance = state.pop("feature_norm.running_var").double()
        _fold(state, state.pop("feature_norm.running_mean"), (variance + EPS).sqrt())
        changed["norm"] = "none"
    if head.standardizes and type(head) is Linear and type(head.feature_norm) is not torch.nn.LayerNorm:
        _fold(state, state.pop("standardizer.mean"), state.pop("standardizer.sd").double())
        changed["standardize"] = "none"
    return state, changed


def _plain(head: PooledHead) -> bool:
    """Whether its logits are the linear layer of its normed features, and nothing else."""
    own = type(head)
    return own.forward is PooledHead.forward and own.logits_of is PooledHead.logits_of


def _fold(state: State, mean: Tensor, sd: Tensor) -> None:
    weight = state["classify.weight"].double() / sd
    state["classify.bias"] = (state["classify.bias"] - weight @ mean.double()).float()
    state["classify.weight"] = weight.float()
