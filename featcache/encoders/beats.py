"""BEATs and OpenBEATs: deep-norm blocks, a convolutional position and gated relative biases."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from featcache.encoders.blocks import run_blocks


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a BEATs checkpoint is built from."""

    dim: int
    depth: int
    num_heads: int
    hidden: int
    patch_dim: int
    num_buckets: int
    max_distance: int  # [tokens] beyond it all are in the last bucket
    conv_kernel: int
    conv_groups: int
    deep_norm: bool


class Attention(nn.Module):
    """Self-attention with a relative position bias that each query gates by its own content."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.grep_linear = nn.Linear(dim // num_heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, num_heads, 1, 1))

    def forward(self, x: Tensor, position_bias: Tensor) -> Tensor:
        """x (B, N, D), position_bias (1, H, N, N)."""
        B, N, _ = x.shape
        q, k, v = (
            proj(x).view(B, N, self.num_heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        gates = self.grep_linear(q).view(B, self.num_heads, N, 2, 4).sum(-1).sigmoid()
        inner, outer = gates.chunk(2, dim=-1)  # (B, H, N, 1) each
        bias = (inner * (outer * self.grep_a - 1.0) + 2.0) * position_bias  # (B, H, N, N)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(B, N, -1))
        return out


class Layer(nn.Module):
    """Post-norm with a scaled residual (deep norm): x = norm(alpha * x + f(x))."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        dim = sizes.dim
        self.alpha = (2.0 * sizes.depth) ** 0.25 if sizes.deep_norm else 1.0
        self.self_attn = Attention(dim, sizes.num_heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, sizes.hidden)
        self.fc2 = nn.Linear(sizes.hidden, dim)
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position_bias: Tensor) -> Tensor:
        x = self.self_attn_layer_norm(x * self.alpha + self.self_attn(x, position_bias))
        out: Tensor = self.final_layer_norm(x * self.alpha + self.fc2(gelu(self.fc1(x))))
        return out


class BEATs(nn.Module):
    """Patches of a spectrogram to the outputs of the layers; no cls, no norm at the end.

    Source:
        microsoft/unilm @768a3c8, beats/BEATs.py, backbone.py, modules.py
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.patch_embedding = nn.Conv2d(1, sizes.patch_dim, 16, 16, bias=False)
        self.layer_norm = nn.LayerNorm(sizes.patch_dim)
        same = sizes.patch_dim == sizes.dim
        self.post_extract_proj = nn.Identity() if same else nn.Linear(sizes.patch_dim, sizes.dim)
        self.pos_conv = nn.Conv1d(
            sizes.dim,
            sizes.dim,
            sizes.conv_kernel,
            padding=sizes.conv_kernel // 2,
            groups=sizes.conv_groups,
        )
        self.relative_bias = nn.Embedding(sizes.num_buckets, sizes.num_heads)  # shared by all layers
        self.encoder_norm = nn.LayerNorm(sizes.dim)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.depth))

    def forward(self, features: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features (B, frames, mels) to tokens (B, frames // 16 * 8, D)."""
        patches = self.patch_embedding(features[:, None]).flatten(2).transpose(1, 2)  # time-major
        x = self.post_extract_proj(self.layer_norm(patches))
        N = x.shape[1]
        around = self.pos_conv(x.transpose(1, 2))[..., :N]  # an even kernel gives one too many
        x = self.encoder_norm(x + gelu(around).transpose(1, 2))
        bias = self._position_bias(N, x.device)
        return run_blocks([partial(layer, position_bias=bias) for layer in self.layers], x, layers)

    def _position_bias(self, N: int, device: torch.device) -> Tensor:
        index = torch.arange(N, device=device)
        buckets = bucket(index[None] - index[:, None], self.sizes.num_buckets, self.sizes.max_distance)
        bias: Tensor = self.relative_bias(buckets)  # (N, N, H)
        return bias.permute(2, 0, 1)[None]


def bucket(distance: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """T5's bucket of a distance (key minus query): exact when near, logarithmic when far.

    >>> bucket(torch.tensor([-1300, -1, 0, 1, 79, 80, 1300]), 320, 800).tolist()
    [159, 1, 0, 161, 239, 240, 319]
    """
    half = num_buckets // 2
    exact = half // 2
    size = distance.abs()
    scale = torch.log(torch.tensor(max_distance / exact, dtype=torch.float64)).item()
    far = exact + (torch.log(size.float().clamp_min(1) / exact) / scale * (half - exact)).long()
    return torch.where(size < exact, size, far.clamp_max(half - 1)) + half * (distance > 0)


def sizes_of(shapes: dict[str, torch.Size], config: Any) -> Sizes:
    """Sizes from the tensors' shapes; what shapes do not tell from the checkpoint's own ``cfg``."""
    conv = shapes["pos_conv.weight"]
    return Sizes(
        dim=conv[0],
        depth=1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("layers.")),
        num_heads=shapes["relative_bias.weight"][1],
        hidden=shapes["layers.0.fc1.weight"][0],
        patch_dim=shapes["patch_embedding.weight"][0],
        num_buckets=shapes["relative_bias.weight"][0],
        max_distance=int(config.get("max_distance", 800)),
        conv_kernel=conv[2],
        conv_groups=conv[0] // conv[1],
        deep_norm=bool(config.get("deep_norm", True)),
    )
