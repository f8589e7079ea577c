"""Attention-based multiple-instance learning: a network of two layers says what a token counts."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nn_f

from featcache.heads.attentive import attention_weights
from featcache.heads.base import HeadSpec
from featcache.heads.linear import PAPER
from featcache.heads.matching import is_plain
from featcache.heads.pooled import Norm, PooledHead


class Abmilp(PooledHead):
    """Attention-based multiple-instance learning: a two-layer network weighs every token.

    Source:
        ``abmilp``: Ilse et al. 2018, arXiv 1802.04712, equation 8 without the gate; as in
        https://github.com/billpsomas/efficient-probing, poolings/abmilp.py @ 3a87bff, without its
        optional self-attention

    >>> sum(p.numel() for p in Abmilp(dim=768, num_classes=10).parameters())
    599051
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        self.hidden = nn.Linear(dim, dim)
        self.weigh = nn.Linear(dim, 1)

    def attention(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """The weight of every token, (B, N)."""
        own = self.hidden.weight, self.hidden.bias, self.weigh.weight
        if tokens.requires_grad or is_plain():
            logits = self.weigh(self.hidden(tokens).tanh()).squeeze(-1)
        else:
            logits = Weighed.apply(tokens, *own) + self.weigh.bias
        return attention_weights(logits, valid)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return torch.bmm(self.attention(tokens, valid).unsqueeze(1), tokens).squeeze(1)

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) * num_tokens


class Weighed(torch.autograd.Function):
    """The network's output for tokens that take no gradient, with one pass less over its hidden units.

    Shape:
        - tokens: (B, N, D)
        - weight, bias: (H, D) and (H,), of the hidden layer
        - weigh: (1, H)
        - output: (B, N)
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, bias: Tensor, weigh: Tensor) -> Tensor:
        hidden = nn_f.linear(tokens, weight, bias).tanh_()
        ctx.save_for_backward(tokens, hidden, weigh)
        return (hidden @ weigh.T).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        tokens, hidden, weigh = (own.flatten(0, -2) for own in ctx.saved_tensors)
        grad = grad.flatten()
        to_weigh = grad @ hidden
        inner = torch.ops.aten.tanh_backward(weigh.expand_as(hidden), hidden).mul_(grad.unsqueeze(-1))
        return None, inner.T @ tokens, inner.sum(dim=0), to_weigh.unsqueeze(0)


ABMILP = HeadSpec(
    name="abmilp",
    build=Abmilp,
    reads="tokens",
    family="attentive",
    summary="attention weights from a two-layer network",
    formula="W sum_n softmax_n(w . tanh(U z_n + a) + c) z_n + b",
    parameters="D*D + 2*D + 1 + D*C + C",
    source=f"{PAPER}; ABMIL, arXiv 1802.04712",
    in_paper=True,
)
