"""Attention over a learned convex mixture of every kept layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from featcache.heads.attentive import Attentive, attention_weights
from featcache.heads.base import HeadSpec, Inputs
from featcache.heads.matching import is_plain
from featcache.heads.pooled import Norm


class AttentiveLayers(Attentive):
    """``mhca`` on a softmax-weighted mixture of the layer-normalised tokens of all layers.

    Source:
        mixture after the layer-wise probes of Earth Species Project's avex; the layer norms have no
        weights of their own here
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_layers: int,
        num_heads: int | None = None,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(
            dim, num_classes, num_heads=num_heads, norm=norm, dropout=dropout, use_padding=use_padding
        )
        self.gates = nn.Parameter(torch.zeros(num_layers))

    def ready(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Inputs:
        """Tokens stay as they are stored: no float copy of all layers is held."""
        _, _, valid = super().ready(None, None, valid)
        return tokens, None, valid

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        """What a mixture would give, layer by layer: neither it nor a normalised token is ever made."""
        layers = tokens.unbind(dim=1)
        mean, spread = moments(layers, self.gates.dtype)
        gain = self.gates.softmax(dim=0).view(1, -1, 1) / spread  # (B, layers, N)
        query = self.folded_query()
        sums = query.sum(dim=-1).view(1, -1, 1)
        factors = list(zip(layers, mean, gain.unsqueeze(2).unbind(1), strict=True))
        products = [
            factor * (times(query.expand(len(own), -1, -1), own.transpose(1, 2)) - middle * sums)
            for own, middle, factor in factors
        ]
        weights = attention_weights(torch.stack(products).sum(dim=0), valid)  # (B, h, N)
        means = [
            times(weights * factor, own) - (weights * factor * middle).sum(dim=-1, keepdim=True)
            for own, middle, factor in factors
        ]
        return self.values(torch.stack(means).sum(dim=0))


class Times(torch.autograd.Function):
    """A product with tokens that take no gradient, which are kept for backward as they are stored."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        return left @ tokens.to(left.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (tokens,) = ctx.saved_tensors
        return grad @ tokens.to(grad.dtype).transpose(1, 2), None


def times(left: Tensor, tokens: Tensor) -> Tensor:
    """The products (B, h, n) of ``left`` (B, h, k) with tokens (B, k, n), in the dtype of ``left``."""
    return left @ tokens.to(left.dtype) if tokens.requires_grad or is_plain() else Times.apply(left, tokens)


def moments(layers: Sequence[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], Tensor]:
    """Mean and standard deviation of the values of every token, as a layer norm has them.

    Shape:
        - layers: (B, N, D) each
        - output: (B, 1, N) each, and (B, layers, N)
    """
    means, variances = [], []
    for layer in layers:
        own = layer.to(dtype)
        mean = own.mean(dim=-1, keepdim=True)
        # torch.var_mean takes ten times as long on a CPU.
        variances.append(torch.linalg.vector_norm(own - mean, dim=-1).square() / own.shape[-1])
        means.append(mean.transpose(1, 2))
    return means, (torch.stack(variances, dim=1) + 1e-6).sqrt()


ATTENTIVE_LAYERS = HeadSpec(
    name="attentive-layers",
    build=AttentiveLayers,
    reads="layers",
    family="layers",
    summary="mhca on a softmax-weighted mixture of all layers",
    formula="mhca(sum_l softmax(a)_l LN(z_ln))",
    parameters="layers + 2*D*D + D + D*C + C",
    source="layer-wise probes of Earth Species Project's avex",
)
