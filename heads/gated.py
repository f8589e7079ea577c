"""Convex gated probing: float prototypes against a learned mixture of the unit tokens of all layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as nn_f

from featcache.heads.base import HeadSpec, Inputs
from featcache.heads.matching import gather_winners, is_plain, match
from featcache.heads.pooled import Norm, PooledHead
from featcache.heads.pooling import share_of


def mix_layers(tokens: Tensor, gain: Tensor) -> Tensor:
    """Sum over layers of gain (B, layers, N) times tokens (B, layers, N, D): (B, N, D) in gain's dtype."""
    total = gain[:, 0].unsqueeze(-1) * tokens[:, 0].to(gain.dtype)
    for layer in range(1, tokens.shape[1]):
        total = total.addcmul(gain[:, layer].unsqueeze(-1), tokens[:, layer].to(gain.dtype))
    return total


def scales(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """One over the length of every token, (B, layers, N)."""
    lengths = [torch.linalg.vector_norm(layer.to(dtype), dim=-1) for layer in tokens.unbind(dim=1)]
    return 1 / torch.stack(lengths, dim=1).clamp(min=1e-12)


def unit_means(tokens: Tensor, scale: Tensor, valid: Tensor | None) -> Tensor:
    """The mean unit token of every layer, (B, layers, D)."""
    share = share_of(valid, scale[:, 0])
    means = [
        torch.bmm((share * own).unsqueeze(1), layer.to(own.dtype)).squeeze(1)
        for layer, own in zip(tokens.unbind(dim=1), scale.unbind(dim=1), strict=True)
    ]
    return torch.stack(means, dim=1)


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
        share = self.gates.softmax(dim=0)
        scale = scales(tokens, share.dtype)
        whole = unit_means(tokens, scale, valid) if cls is None else nn_f.normalize(cls, dim=-1)
        direction = nn_f.normalize(self.prototypes, dim=-1)
        # A user's own form of the match, and exporters, need plain operations.
        found = extremes if tokens.requires_grad or is_plain() else Extremes.apply
        lowest, highest = found(tokens, scale, share, direction, valid)
        middle = torch.einsum("l,bld->bd", share, whole) @ direction.T
        return torch.stack([lowest, middle, highest], dim=-1).flatten(1)

    def ready(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Inputs:
        """Tokens stay as they are stored: no float copy of all layers is held."""
        _, cls, valid = super().ready(None, cls, valid)
        return tokens, cls, valid

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) * num_tokens


def extremes(
    tokens: Tensor, scale: Tensor, share: Tensor, direction: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Smallest and largest product (B, K) over the tokens of a mixture, in plain operations.

    Shape:
        - tokens: (B, layers, N, D)
        - scale: (B, layers, N), one over their lengths
        - share: (layers,), what each layer counts
        - direction: (K, D), unit prototypes
    """
    scores, _ = mixed_match(tokens, scale, share, direction, valid)
    highest, lowest = scores.chunk(2, dim=-1)
    return -lowest, highest


def mixed_match(
    tokens: Tensor, scale: Tensor, share: Tensor, direction: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The match of a mixture with all prototypes, then with their opposites: (B, 2K) each."""
    mixture = mix_layers(tokens, share.view(1, -1, 1) * scale)
    missing = (1 - torch.linalg.vector_norm(mixture, dim=-1, keepdim=True).square()).clamp(min=1e-12).sqrt()
    both = nn_f.pad(torch.cat([direction, -direction]), (0, 1))
    return match(torch.cat([mixture, missing], dim=-1), both, valid)


class Extremes(torch.autograd.Function):
    """``extremes`` with its gradient for share and direction from the winning tokens alone.

    No gradient of the mixture is made: what fills its tokens up cancels out of a product.
    """

    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, scale: Tensor, share: Tensor, direction: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores, index = mixed_match(tokens, scale, share, direction, valid)
        ctx.save_for_backward(tokens, scale, share, direction, index)
        highest, lowest = scores.chunk(2, dim=-1)
        return -lowest, highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, low: Tensor, high: Tensor) -> tuple[None, None, Tensor, Tensor, None]:
        tokens, scale, share, direction, index = ctx.saved_tensors
        weight, both = torch.cat([high, low], dim=-1), direction.repeat(2, 1)  # (B, 2K), (2K, D)
        pulls = [
            gather_winners(own, both, weight * factor.gather(1, index), index)
            .view(2, *direction.shape)
            .sum(0)
            for own, factor in zip(tokens.unbind(dim=1), scale.unbind(dim=1), strict=True)
        ]
        pull = torch.stack(pulls)  # (layers, K, D)
        to_share = torch.einsum("lkd,kd->l", pull, direction)
        return None, None, to_share, torch.einsum("l,lkd->kd", share, pull), None


CGP = HeadSpec(
    name="cgp",
    build=Gated,
    reads="layers",
    family="layers",
    summary="convex gated probing: smallest, cls and largest product with float prototypes",
    formula="W [min_n p.y_n, p.o, max_n p.y_n] + b, y_n = sum_l softmax(a)_l z_ln/|z_ln|, "
    "o of cls, or mean_n y_n",
    parameters="P*D + layers + 3*P*C + C",
    source="arXiv 2602.16305",
)
