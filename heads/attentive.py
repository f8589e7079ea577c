"""Attentive heads: learned weights over the tokens, one weighted mean, one linear layer.

A query meets a key as ``q . (K z) = (K^T q) . z``, and a weighted mean of values is the value of the
weighted mean. So keys and values of single tokens are never computed: the same function as the
published forms, at a small part of the cost wherever there are fewer queries than dimensions.
"""

import torch
from torch import Tensor, nn

from featcache.errors import InputError
from featcache.heads.base import HeadSpec, Inputs, Parameters
from featcache.heads.linear import PAPER
from featcache.heads.pooled import Norm, PooledHead
from featcache.heads.pooling import seen


def attention_weights(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Softmax over the last axis, the tokens; padding gets exactly zero.

    Shape:
        - logits: (B, ..., N)
        - valid: (B, N) bool or None
    """
    if valid is not None:
        shape = (valid.shape[0], *([1] * (logits.ndim - 2)), valid.shape[1])
        logits = logits.masked_fill(~seen(valid).view(shape), -torch.inf)
    return logits.softmax(dim=-1)


def default_num_heads(dim: int) -> int:
    """The largest number of heads, at most AIM's 12, that divides the width.

    >>> [default_num_heads(dim) for dim in (256, 768, 1024, 1280)]
    [8, 12, 8, 10]
    """
    return next(count for count in range(12, 0, -1) if dim % count == 0)


class Attentive(PooledHead):
    """Multi-head cross-attention: one learned query, key and value projections without bias.

    AIM normalises the tokens with a batch norm first; as in Bird-MAE by the paper's authors it is
    left out. ``norm="batch"`` puts one before the linear layer, as MAE and efficient probing do.

    Args:
        num_heads: 12 as in AIM, or the largest number below that divides the width.

    Source:
        arXiv 2509.24901 (``mhca``, about 1.2 M parameters); form after AIM, arXiv 2401.08541

    >>> sum(p.numel() for p in Attentive(dim=768, num_classes=10).parameters())
    1188106
    """

    undecayed = ("query",)
    rates = "attention"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_heads: int | None = None,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        num_heads = num_heads or default_num_heads(dim)
        if dim % num_heads:
            raise InputError(f"{num_heads} attention heads do not divide {dim} dimensions; give num_heads")
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.randn(1, dim) * 0.02)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)

    def attention(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """The weight of every token in each attention head, (B, h, N)."""
        return attention_weights(self.folded_query() @ tokens.transpose(1, 2), valid)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return self.values(self.attention(tokens, valid) @ tokens)

    def folded_query(self) -> Tensor:
        """What a token is multiplied with for its weight in each attention head, (h, D)."""
        D, h = self.query.shape[-1], self.num_heads
        query = self.query.view(h, D // h) * (D // h) ** -0.5
        return torch.einsum("hk,hkd->hd", query, self.key.weight.view(h, D // h, D))

    def values(self, mean: Tensor) -> Tensor:
        """The values of each attention head's mean token: (B, h, D) to (B, D)."""
        D, h = mean.shape[-1], self.num_heads
        return torch.einsum("bhd,hkd->bhk", mean, self.value.weight.view(h, D // h, D)).flatten(1)

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """One query a head, in two products over the tokens of a batch; they carry no gradient here."""
        tokens, _, valid = inputs
        assert tokens is not None
        B, N, D = tokens.shape
        K, h = len(own["query"]), self.num_heads
        query = own["query"].view(K, h, D // h)
        key = own["key.weight"].view(K, h, D // h, D)
        value = own["value.weight"].view(K, h, D // h, D)
        folded = torch.einsum("khe,khed->khd", query, key) * (D // h) ** -0.5
        attention = (tokens.reshape(B * N, D) @ folded.reshape(K * h, D).T).view(B, N, K * h)
        if valid is not None:
            attention = attention.masked_fill(~seen(valid).unsqueeze(-1), -torch.inf)
        weights = attention.softmax(dim=1)  # over tokens, where they lie: a transpose would be copied
        mean = torch.bmm(weights.transpose(1, 2), tokens).view(B, K, h, D)
        return torch.einsum("bkhd,khed->kbhe", mean, value).reshape(K, B, D)

    def kept_floats(self, num_tokens: int) -> int:
        return self.num_heads * (3 * num_tokens + 3 * self.query.shape[-1])

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) + 4.0 * self.num_heads * num_tokens * self.query.shape[-1]


class EfficientProbing(PooledHead):
    """M queries attend the tokens themselves; each takes its own slice of one value projection.

    Args:
        num_queries: M, a divisor of the width.
        narrow: the value projection is this many times narrower than the token.

    Source:
        ``ep``: https://github.com/billpsomas/efficient-probing, poolings/ep.py @ 3a87bff

    >>> sum(p.numel() for p in EfficientProbing(dim=768, num_classes=10).parameters())
    622090
    """

    undecayed = ("query",)

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_queries: int = 32,
        narrow: int = 1,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(dim // narrow, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        if dim % (num_queries * narrow):
            raise InputError(
                f"{num_queries} queries of slices {narrow} times narrower do not divide {dim} dimensions; "
                "give num_queries"
            )
        self.query = nn.Parameter(torch.randn(num_queries, dim) * 0.02)
        self.value = nn.Linear(dim, dim // narrow, bias=False)

    def attention(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """The weight of every token for each query, (B, M, N)."""
        return attention_weights(self.query @ tokens.transpose(1, 2) * self.query.shape[1] ** -0.5, valid)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        M, D = self.query.shape
        mean = self.attention(tokens, valid) @ tokens  # (B, M, D)
        return torch.einsum("bmd,mkd->bmk", mean, self.value.weight.view(M, -1, D)).flatten(1)

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) + 4.0 * self.query.numel() * num_tokens


MHCA = HeadSpec(
    name="mhca",
    build=Attentive,
    reads="tokens",
    family="attentive",
    summary="multi-head cross-attention with one learned query",
    formula="W concat_h(V_h sum_n softmax_n(q_h . K_h z_n / sqrt(D_h)) z_n) + b",
    parameters="2*D*D + D + D*C + C",
    source=f"{PAPER}; AIM, arXiv 2401.08541",
    in_paper=True,
)
EP = HeadSpec(
    name="ep",
    build=EfficientProbing,
    reads="tokens",
    family="attentive",
    summary="many queries without keys, one slice of the values each",
    formula="W concat_m(V_m sum_n softmax_n(q_m . z_n / sqrt(D)) z_n) + b",
    parameters="D*D + M*D + D*C + C",
    source=f"{PAPER}; efficient probing, github.com/billpsomas/efficient-probing",
    in_paper=True,
)
