"""M2D: a ViT over 16-frame patches of an 80-band mel spectrogram, in chunks of its own width."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import PurePath

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from featcache.audio.melspec import SlaneyLogMel
from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.blocks import run_blocks
from featcache.encoders.mel_encoder import MelEncoder
from featcache.encoders.vit import freeze
from featcache.errors import MismatchError
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

MELS = 80
# The authors take what their encoder needs and drop all else: decoder, targets, heads.
IGNORED = ("",)


class M2D(nn.Module):
    """Tokens of chunks, each with its own cls and positions from the first.

    Source:
        nttcslab/m2d @f0c4128, examples/portable_m2d.py, LocalViT and encode_lms
    """

    norm_stats: Tensor

    def __init__(
        self, dim: int, depth: int, num_heads: int, hidden: int, patch: tuple[int, int], positions: int
    ) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.patch, self.rows = patch, MELS // patch[0]
        self.chunk = positions // self.rows * patch[1]  # [frames] as many as there are positions
        self.register_buffer("norm_stats", torch.zeros(2))
        self.patch_embed = nn.Conv2d(1, dim, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, dim))
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=hidden / dim, qkv_bias=True, norm_layer=norm)
            for _ in range(depth)
        )
        self.norm = norm(dim)

    def columns(self, frames: int) -> int:
        """Columns of patches; the last one is filled up with the mean."""
        return math.ceil(frames / self.patch[1])

    def whole_columns(self, features: Tensor) -> Tensor:
        """Log-mels (frames, 80), filled up with the mean to whole patches."""
        missing = -len(features) % self.patch[1]
        return torch.cat([features, self.norm_stats[0].expand(missing, features.shape[1])])

    def forward(self, features: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Log-mels (B, frames, 80) to time-major tokens (B, T*F, D); the last layer is normed."""
        mean, std = self.norm_stats
        normed = (features.float() - mean) / std
        whole = pad(normed, (0, 0, 0, -normed.shape[1] % self.patch[1]))
        chunks = [self._chunk(part, layers) for part in torch.split(whole, self.chunk, dim=1)]
        return {layer: torch.cat([chunk[layer] for chunk in chunks], dim=1) for layer in layers}

    def _chunk(self, frames: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        patches = self.patch_embed(frames.transpose(1, 2)[:, None])  # (B, D, F, T)
        T = patches.shape[-1]
        table = self.pos_embed[:, 1:].reshape(1, self.rows, -1, patches.shape[1])
        positions = table[:, :, :T].flatten(1, 2)  # (1, F*T, D)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches), -1, -1)
        hidden = torch.cat([first, patches.flatten(2).transpose(1, 2) + positions], dim=1)
        states, depth = run_blocks(self.blocks, hidden, layers), len(self.blocks)
        return {k: self._time_major(self.norm(v) if k == depth else v) for k, v in states.items()}

    def _time_major(self, state: Tensor) -> Tensor:
        B, _, D = state.shape
        return state[:, 1:].reshape(B, self.rows, -1, D).transpose(1, 2).flatten(1, 2)


def build_m2d(weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None) -> Encoder:
    """M2D at 16 kHz for clips of up to ``clip_seconds`` (10 unless given).

    Raises:
        MismatchError: the checkpoint is for 32 kHz by its folder's name, which is where the authors say it.
    """
    if PurePath(weights).parent.name.endswith("p32k"):
        raise MismatchError(
            f"{weights} is for 32 kHz by its folder's name; only M2D at 16 kHz is implemented, give those",
            options=("weights",),
        )
    checkpoint = load_checkpoint(weights).without("ar.runtime.backbone.")
    dim = checkpoint.shape("pos_embed", "M2D")[-1]
    heads = heads_of(checkpoint, dim, num_heads)
    model = load_m2d(checkpoint, heads)
    about = {"architecture": "M2D", "tokens": "norm of the last block", "num_heads": heads}
    return freeze(
        MelEncoder(
            model,
            SlaneyLogMel(),
            clip_seconds=10.0 if clip_seconds is None else clip_seconds,
            rows=model.rows,
            columns=model.columns,
            whole=model.whole_columns,
            shortest_frames=3,
            dim=dim,
            depth=len(model.blocks),
            about={**about, "patch": list(model.patch), "chunk_frames": model.chunk},
        )
    )


def load_m2d(checkpoint: Checkpoint, num_heads: int) -> M2D:
    """The model, sized by the checkpoint's tensors; the authors' statistics where it has none."""
    named = checkpoint.with_state(
        {key.replace("patch_embed.proj.", "patch_embed."): value for key, value in checkpoint.state.items()}
    )
    dim, _, *patch = named.shape("patch_embed.weight", "M2D")
    positions = named.shape("pos_embed", "M2D")[1] - 1
    hidden = named.shape("blocks.0.mlp.fc1.weight", "M2D")[0]
    if MELS % patch[0] or positions % (MELS // patch[0]):
        raise MismatchError(
            f"{checkpoint.source} is no M2D checkpoint: patches of {patch[0]} x {patch[1]} and {positions} "
            f"positions do not fill {MELS} bands; give the weights of this encoder"
        )
    with torch.device("meta"):
        model = M2D(dim, named.count("blocks"), num_heads, hidden, (patch[0], patch[1]), positions)
    statistics = {"norm_stats": torch.tensor([-7.1, 4.2])}
    load_into(model, named.with_state({**statistics, **named.state}), ignored=IGNORED)
    return model


M2D_BASE = EncoderSpec(
    name="m2d",
    build=build_m2d,
    sample_rate=16_000,
    clip_seconds=10.0,
    dim=768,
    depth=12,
    has_cls=False,
    grid=(5, 63),
    frontend="mel spectrogram, 80 slaney mel from 50 Hz, n_fft 400, hop 160, log(x + 1.2e-7); "
    "(x - mean) / std of the checkpoint, else (x + 7.1) / 4.2",
    padding="up to 15 frames of the mean at the end; beyond 608 frames (of the usual sizes) in chunks",
    tokens="norm of the last block",
    clip_vector="the five rows side by side, mean over time",
    weights=None,
    needs_weights=True,
    licence="non-commercial: NTT evaluation licence, not transferable (LICENSE.pdf)",
    source="Niizumi et al. 2024, Masked Modeling Duo: Towards a Universal Audio Pre-training Framework, "
    "arXiv:2404.06095; github.com/nttcslab/m2d @f0c4128",
    checked="golden arrays of the authors' code on seeded weights; published weights not checked",
)
