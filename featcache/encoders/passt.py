"""PaSST: a supervised ViT over overlapping patches at 32 kHz, with a table for time and one for frequency."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from featcache.audio.melspec import EmphasisedLogMel
from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.blocks import run_blocks
from featcache.encoders.classifier import cls_token, read_classifier
from featcache.encoders.mel_encoder import MelEncoder
from featcache.encoders.patches import require_layers
from featcache.encoders.vit import freeze
from featcache.errors import InputError
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

PATCH, STRIDE = 16, 10
IGNORED = ("head.", "head_dist.")  # classifiers


class PaSST(nn.Module):
    """Patches with both positions, after a cls and a distillation token.

    Source:
        hear21passt 0.0.26, models/passt.py, ``PaSST.forward_features`` in evaluation
    """

    def __init__(self, dim: int, depth: int, num_heads: int, hidden: int, rows: int, columns: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, PATCH, STRIDE)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, dim))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, dim, rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, columns))
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=hidden / dim, qkv_bias=True, norm_layer=norm)
            for _ in range(depth)
        )
        self.norm = norm(dim)

    def forward(self, features: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Spectrograms (B, frames, 128) to (B, 2 + T*F, D), time-major; the last layer is normed."""
        patches = self.patch_embed(features.transpose(1, 2)[:, None])  # (B, D, F, T)
        patches = patches + self.time_new_pos_embed[..., : patches.shape[-1]] + self.freq_new_pos_embed
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        # Time-major at once: no block looks at the order.
        tokens = patches.transpose(2, 3).flatten(2).transpose(1, 2)  # (B, T*F, D)
        hidden = torch.cat([first.expand(len(patches), -1, -1), tokens], dim=1)
        depth = len(self.blocks)
        states = run_blocks(self.blocks, hidden, layers)
        return {layer: self.norm(state) if layer == depth else state for layer, state in states.items()}


class PaSSTEncoder(MelEncoder):
    """PaSST at the clip's own length; ``cls`` is the authors' vector, the mean of both tokens."""

    has_cls = True

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Spectrograms (B, frames, 128) to the outputs of ``layers``."""
        states = self.model(features, require_layers(layers, 1, self.depth))
        cls = {layer: state[:, :2].mean(1) for layer, state in states.items()}
        return Encoded({layer: state[:, 2:] for layer, state in states.items()}, cls)


def columns(frames: int) -> int:
    """Columns of patches.

    >>> [columns(frames) for frames in (300, 1000)]
    [29, 99]
    """
    return (frames - PATCH) // STRIDE + 1


def whole_columns(features: Tensor) -> Tensor:
    """Spectrograms (frames, 128) without the frames at the end that fill no patch."""
    return features[: (columns(len(features)) - 1) * STRIDE + PATCH]


def build_passt(weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None) -> Encoder:
    """PaSST for clips of up to ``clip_seconds`` (10 unless given).

    Raises:
        InputError: the clips have more columns than there are positions.
    """
    checkpoint = load_checkpoint(weights)
    _, dim, _, most = checkpoint.shape("time_new_pos_embed", "PaSST")
    heads = heads_of(checkpoint, dim, num_heads)
    model = load_passt(checkpoint, heads)
    encoder = PaSSTEncoder(
        model,
        EmphasisedLogMel(),
        clip_seconds=10.0 if clip_seconds is None else clip_seconds,
        rows=model.freq_new_pos_embed.shape[2],
        columns=columns,
        whole=whole_columns,
        shortest_frames=PATCH,
        dim=dim,
        depth=len(model.blocks),
        about={"architecture": "PaSST", "tokens": "norm of the last block", "num_heads": heads},
    )
    if encoder.grid[1] > most:
        raise InputError(
            f"{weights} has positions for {most} columns, and clips of {clip_seconds} s give "
            f"{encoder.grid[1]}; give fewer seconds, and split longer clips into windows",
            options=("clip_seconds", "window_seconds"),
        )
    encoder.classifier = read_classifier(checkpoint, "head.1", cls_token, norm="head.0", eps=1e-5)
    return freeze(encoder)


def load_passt(checkpoint: Checkpoint, num_heads: int) -> PaSST:
    """The model, sized by the checkpoint's tensors."""
    _, dim, rows, _ = checkpoint.shape("freq_new_pos_embed", "PaSST")
    most = checkpoint.shape("time_new_pos_embed", "PaSST")[3]
    hidden = checkpoint.shape("blocks.0.mlp.fc1.weight", "PaSST")[0]
    with torch.device("meta"):
        model = PaSST(dim, checkpoint.count("blocks"), num_heads, hidden, rows, most)
    named = {key.replace("patch_embed.proj.", "patch_embed."): t for key, t in checkpoint.state.items()}
    load_into(model, checkpoint.with_state(named), ignored=IGNORED)
    return model


PASST = EncoderSpec(
    name="passt",
    build=build_passt,
    sample_rate=32_000,
    clip_seconds=10.0,
    dim=768,
    depth=12,
    has_cls=True,
    grid=(12, 99),
    frontend="mel spectrogram at 32 kHz, pre-emphasis 0.97, 128 Kaldi mel to 15 kHz, n_fft 1024, window 800, "
    "hop 320; (log(x + 1e-5) + 4.5) / 5",
    padding="none: the clip's own length",
    tokens="norm of the last block; patches of 16 every 10, turned to time-major",
    clip_vector="mean of the cls and distillation tokens, stored as cls",
    weights="https://github.com/kkoutini/PaSST/releases/download/v0.0.1-audioset/"
    "passt-s-f128-p16-s10-ap.476-swa.pt",
    needs_weights=True,
    licence="Apache-2.0 (hear21passt package; nothing seen of the weights alone)",
    source="Koutini et al. 2022, Efficient Training of Audio Transformers with Patchout, arXiv:2110.05069; "
    "PyPI hear21passt 0.0.26",
    checked="golden arrays of the authors' package on seeded weights; published weights not checked",
)
