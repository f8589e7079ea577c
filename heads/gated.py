"""Convex gated probing: float prototypes against a learned mixture of the unit tokens of all layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nn_f

from featcache.heads.base import HeadSpec, Inputs
from featcache.heads.matching import gather_winners, is_plain, match
from featcache.heads.pooled import Norm, PooledHead
from featcache.heads.pooling import mean_tokens


def mix_layers(tokens: Tensor, gain: Tensor) -> Tensor:
    """Sum over layers of gain (B, layers, N) times tokens (B, layers, N, D): (B, N, D) in gain's dtype.

    Layer by layer, so that autograd keeps the tokens as they are stored and no float copy of all.
    """
    total = gain[:, 0].unsqueeze(-1) * tokens[:, 0]
    for layer in range(1, tokens.shape[1]):
        total = total + gain[:, layer].unsqueeze(-1) * tokens[:, layer]
    return total


def lengths(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """Length of every token, (B, layers, N), in ``dtype``."""
    parts = [tokens[:, layer].to(dtype).norm(dim=-1) for layer in range(tokens.shape[1])]
    return torch.stack(parts, dim=1).clamp(min=1e-12)


class Gated(PooledHead):
    """Convex gated probing: float prototypes against a mixture of the unit tokens of all layers.

    For each prototype the smallest and the largest product over tokens, and that with the mixture of
    the cls (where an encoder has none: the mean product), then dropout and one dense linear layer.

    A mixture of unit vectors is at most one long. With one more dimension that fills it up to exactly
    one, and a zero there in the prototype, the product is a cosine: the fused match serves here too.

    Args:
        num_prototypes: K

    Source:
        arXiv 2602.16305 (``cgp``)

    >>> head = Gated(dim=768, num_classes=527, num_layers=12)
    >>> sum(p.numel() for p in head.parameters())
    23490539
    """

    undecayed = ("prototypes",)

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        num_layers: int,
        num_prototypes: int = 10_000,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(3 * num_prototypes, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        self.gates = nn.Parameter(torch.ones(num_layers))
        self.prototypes = nn.Parameter(torch.randn(num_prototypes, dim) * 0.02)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        """Smallest, whole and largest product of each prototype, (B, 3K)."""
        dtype = self.prototypes.dtype
        share = self.gates.softmax(dim=0)
        mixture = mix_layers(tokens, share.view(1, -1, 1) / lengths(tokens, dtype))
        if cls is None:
            whole = mean_tokens(mixture, valid)
        else:
            whole = torch.einsum("l,bld->bd", share, nn_f.normalize(cls, dim=-1))
        direction = nn_f.normalize(self.prototypes, dim=-1)
        # A user's own form of the match, and exporters, need plain operations.
        found = extremes if is_plain() else Extremes.apply
        lowest, highest = found(mixture, direction, valid)
        return torch.stack([lowest, whole @ direction.T, highest], dim=-1).flatten(1)

    def ready(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Inputs:
        """Tokens stay as they are stored: no float copy of all layers is held."""
        _, cls, valid = super().ready(None, cls, valid)
        return tokens, cls, valid

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) * num_tokens


def extremes(mixture: Tensor, direction: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest product (B, K) over tokens at most one long, in plain operations."""
    missing = (1 - mixture.square().sum(dim=-1, keepdim=True)).clamp(min=1e-12).sqrt()
    filled = torch.cat([mixture, missing], dim=-1)
    both = nn_f.pad(torch.cat([direction, -direction]), (0, 1))
    scores, _ = match(filled, both, valid)
    highest, lowest = scores.chunk(2, dim=-1)
    return -lowest, highest


class Extremes(torch.autograd.Function):
    """``extremes``, with the gradient of a product: what fills a token up cancels out of it."""

    @staticmethod
    def forward(ctx: Any, mixture: Tensor, direction: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        filled = nn_f.pad(mixture, (0, 1))
        filled[..., -1] = (1 - torch.linalg.vector_norm(mixture, dim=-1).square()).clamp(min=1e-12).sqrt()
        scores, index = match(filled, nn_f.pad(torch.cat([direction, -direction]), (0, 1)), valid)
        ctx.save_for_backward(mixture, direction, index)
        highest, lowest = scores.chunk(2, dim=-1)
        return -lowest, highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, None]:
        mixture, direction, index = ctx.saved_tensors
        weight, both = torch.cat([high, low], dim=-1), direction.repeat(2, 1)  # (B, 2K), (2K, D)
        to_direction = gather_winners(mixture, both, weight, index).view(2, *direction.shape).sum(dim=0)
        to_mixture = torch.zeros_like(mixture)
        for clip, own, place in zip(to_mixture, weight, index, strict=True):
            clip.index_add_(0, place, own.unsqueeze(-1) * both)
        return to_mixture, to_direction, None


CGP = HeadSpec(
    name="cgp",
    build=Gated,
    reads="layers",
    family="layers",
    summary="convex gated probing: smallest, cls and largest product with float prototypes",
    formula="W [min_n p.y_n, p.o, max_n p.y_n] + b, y_n = sum_l softmax(a)_l z_ln/|z_ln|, o of cls",
    parameters="P*D + layers + 3*P*C + C",
    source="arXiv 2602.16305",
)
