"""Stacked forms: the logits of K heads of one type by a few large products.

A form equals the head's own ``forward`` row by row (a test says so for each). ``tokens`` carry no
gradient here, which is what makes the attention below cheap.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from featcache.heads.attentive import Attentive
from featcache.heads.base import Head
from featcache.heads.binarize import binarize
from featcache.heads.linear import Linear, Mlp
from featcache.heads.matching import match
from featcache.heads.pooling import seen
from featcache.heads.prototypical import ProtoBin, ProtoFloat
from featcache.heads.streams import Streams

Inputs = tuple[Tensor | None, Tensor | None, Tensor | None]
Parameters = Mapping[str, Tensor]
Form = Callable[..., Tensor]  # (template, parameters (K, …), inputs, streams) -> (K, B, C)


def linear(head: Linear, own: Parameters, inputs: Inputs, streams: Streams | None) -> Tensor:
    """One product for all classes of all heads."""
    _, cls, _ = inputs
    assert cls is not None
    vector = cls.to(own["classify.weight"].dtype)
    if streams is None or head.dropout.p == 0:
        return _shared(vector, own["classify.weight"], own["classify.bias"])
    K = len(own["classify.weight"])
    return _classify(own, vector.expand(K, -1, -1), head.dropout.p, streams)


def mlp(head: Mlp, own: Parameters, inputs: Inputs, streams: Streams | None) -> Tensor:
    """The hidden units of all heads in one product."""
    _, cls, _ = inputs
    assert cls is not None
    hidden = _shared(cls.to(own["hidden.weight"].dtype), own["hidden.weight"], own["hidden.bias"])
    return _classify(own, hidden.relu(), head.dropout.p, streams)


def attentive(head: Attentive, own: Parameters, inputs: Inputs, streams: Streams | None) -> Tensor:
    """Attention with one query, without keys and values of every token.

    ``q . (K z)`` is ``(K^T q) . z``, and a weighted mean of ``V z`` is ``V`` times the weighted mean
    of ``z``: so a head of an attention costs two vectors per token instead of two matrices.
    """
    tokens, _, valid = inputs
    assert tokens is not None
    B, N, D = tokens.shape
    K, h = len(own["query"]), head.num_heads
    tokens = tokens.to(own["query"].dtype)
    query = own["query"].view(K, h, D // h)
    key = own["key.weight"].view(K, h, D // h, D)
    value = own["value.weight"].view(K, h, D // h, D)
    folded = torch.einsum("khe,khed->khd", query, key) * (D // h) ** -0.5
    attention = (tokens.reshape(B * N, D) @ folded.reshape(K * h, D).T).view(B, N, K * h)
    if valid is not None and not head.use_padding:
        attention = attention.masked_fill(~seen(valid).unsqueeze(-1), -torch.inf)
    weights = attention.softmax(dim=1)  # over tokens, where they lie: a transpose would be copied
    mean = torch.bmm(weights.transpose(1, 2), tokens).view(B, K, h, D)
    pooled = torch.einsum("bkhd,khed->kbhe", mean, value).reshape(K, B, D)
    return _classify(own, pooled, head.dropout.p, streams)


def prototypical(head: ProtoFloat, own: Parameters, inputs: Inputs, streams: Streams | None) -> Tensor:
    """One match over the prototypes of all heads."""
    tokens, _, valid = inputs
    assert tokens is not None
    latent = own["prototypes"].flatten(0, 1)  # (K*P, D)
    prototypes = binarize(latent, clip=head.clip) if isinstance(head, ProtoBin) else latent
    scores, _ = match(tokens, prototypes, None if head.use_padding else valid)
    K, P, _ = own["prototypes"].shape
    scores = scores.view(-1, K, P).transpose(0, 1)  # (K, B, P)
    return _classify(own, scores.to(own["classify.weight"].dtype), head.dropout.p, streams)


def _shared(vector: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One input (B, D) through K layers (K, C, D): (K, B, C)."""
    K, C, D = weight.shape
    product = vector @ weight.reshape(K * C, D).T + bias.reshape(K * C)
    return product.view(-1, K, C).transpose(0, 1)


def _classify(own: Parameters, values: Tensor, p: float, streams: Streams | None) -> Tensor:
    """Inputs (K, B, D) of K layers: dropout, then their products."""
    dropped = values if streams is None else streams.dropout(values, p)
    return torch.baddbmm(own["classify.bias"].unsqueeze(1), dropped, own["classify.weight"].transpose(1, 2))


# Heads that compare tokens by their direction alone, and so read them as they are stored.
MATCHING = (ProtoFloat, ProtoBin)

FORMS: dict[type[Head], Form] = {
    Linear: linear,
    Mlp: mlp,
    Attentive: attentive,
    ProtoFloat: prototypical,
    ProtoBin: prototypical,
}
