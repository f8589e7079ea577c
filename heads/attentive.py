"""Attentive heads: learned weights over the tokens, one weighted mean, one linear layer."""

import torch
from torch import Tensor, nn

from featcache.heads.base import Head


def attention_weights(logits: Tensor, valid: Tensor | None) -> Tensor:
    """Softmax over the last axis, the tokens; padding gets exactly zero.

    Shape:
        - logits: (B, ..., N)
        - valid: (B, N) bool or None
    """
    if valid is not None:
        shape = (valid.shape[0], *([1] * (logits.ndim - 2)), valid.shape[1])
        # A finite floor: a clip without any valid token attends evenly instead of giving NaN.
        logits = logits.masked_fill(~valid.view(shape), torch.finfo(logits.dtype).min)
    return logits.softmax(dim=-1)


class Attentive(Head):
    """Multi-head cross-attention: one learned query, key and value projections without bias.

    AIM normalises the tokens with a batch norm first; as in Bird-MAE by the paper's authors it is
    left out (a head must not depend on the batch that a clip is in).

    Source:
        arXiv 2509.24901 (``mhca``, about 1.2 M parameters); form after AIM, arXiv 2401.08541

    >>> sum(p.numel() for p in Attentive(dim=768, num_classes=10).parameters())
    1188106
    """

    undecayed = ("query",)

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_heads: int = 12,
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads if dim % num_heads == 0 else 1
        self.query = nn.Parameter(torch.randn(1, dim) * 0.02)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(dim, num_classes)
        self.use_padding = use_padding

    def forward(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        pooled = self.pool(tokens.to(self.key.weight.dtype), None if self.use_padding else valid)
        logits: Tensor = self.classify(self.dropout(pooled))
        return logits

    def pool(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """Tokens (B, N, D) to pooled (B, D)."""
        B, N, D = tokens.shape
        key = self.key(tokens).view(B, N, self.num_heads, -1)
        value = self.value(tokens).view(B, N, self.num_heads, -1)
        query = self.query.view(self.num_heads, -1)
        attention = torch.einsum("hk,bnhk->bhn", query, key) * query.shape[-1] ** -0.5
        return torch.einsum("bhn,bnhk->bhk", attention_weights(attention, valid), value).reshape(B, D)
