"""ATST-Frame: one token per 40 ms of a 64-band mel spectrogram, no cls, chunks of ten seconds."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from featcache.audio.melspec import MelDecibels
from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.blocks import run_blocks
from featcache.encoders.mel_encoder import MelEncoder
from featcache.encoders.vit import freeze
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

CHUNK = 1001  # frames of 10 s: as many as there are positions
LOW, HIGH = -79.6482, 50.6842  # [dB] become -1 and 1

# The student and the projectors of pre-training; what masked patches become there.
IGNORED = ("model.", "mask_embed")


class ATSTFrame(nn.Module):
    """Tokens of chunks of 1001 frames, each with positions from the first.

    Source:
        Audio-WestlakeU/audiossl @ec3a14d, methods/atstframe/audio_transformer.py and embedding.py
    """

    def __init__(self, dim: int, depth: int, num_heads: int, hidden: int, positions: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.patch_embed = nn.Linear(64 * 4, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, dim))  # its first row is not used
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio=hidden / dim, qkv_bias=False, norm_layer=norm)
            for _ in range(depth)
        )
        self.norm = norm(dim)

    def forward(self, features: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Decibels (B, frames, 64) to tokens (B, T, D); the last layer is normed."""
        scaled = (features.float() - LOW) / (HIGH - LOW) * 2.0 - 1.0
        chunks = [
            self._chunk(part, layers) for part in torch.split(scaled, CHUNK, dim=1) if part.shape[1] >= 4
        ]
        return {layer: torch.cat([chunk[layer] for chunk in chunks], dim=1) for layer in layers}

    def _chunk(self, frames: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        B, T = len(frames), frames.shape[1] // 4
        patches = frames[:, : T * 4].reshape(B, T, 4, -1).transpose(2, 3).flatten(2)  # (B, T, 64 mels x 4)
        hidden = self.patch_embed(patches) + self.pos_embed[:, 1 : T + 1]
        states = run_blocks(self.blocks, hidden, layers)
        depth = len(self.blocks)
        return {layer: self.norm(state) if layer == depth else state for layer, state in states.items()}


def columns(frames: int) -> int:
    """Tokens of a clip: those of its chunks, each without what fills no patch.

    >>> [columns(frames) for frames in (301, 1001, 1231)]
    [75, 250, 307]
    """
    whole, rest = divmod(frames, CHUNK)
    return whole * (CHUNK // 4) + rest // 4


def whole_columns(features: Tensor) -> Tensor:
    """Spectrograms (frames, 64) without the frames at the end that fill no patch."""
    return features[: len(features) - len(features) % CHUNK % 4]


def build_atst_frame(
    weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None
) -> Encoder:
    """ATST-Frame for clips of up to ``clip_seconds`` (10 unless given)."""
    checkpoint = load_checkpoint(weights).without("model.teacher.encoder.")
    dim = checkpoint.shape("norm_frame.weight", "ATST-Frame")[0]
    heads = heads_of(checkpoint, dim, num_heads)
    model = load_atst_frame(checkpoint, heads)
    about = {"architecture": "ATST-Frame", "tokens": "norm of the last block", "num_heads": heads}
    return freeze(
        MelEncoder(
            model,
            MelDecibels(n_fft=1024, low=60.0, high=7800.0, top_db=80.0, stored=False),
            clip_seconds=10.0 if clip_seconds is None else clip_seconds,
            rows=1,
            columns=columns,
            whole=whole_columns,
            shortest_frames=4,
            dim=dim,
            depth=len(model.blocks),
            about={**about, "frequencies": [60, 7800], "minmax": [LOW, HIGH], "chunk_frames": CHUNK},
        )
    )


def load_atst_frame(checkpoint: Checkpoint, num_heads: int) -> ATSTFrame:
    """The model, sized by the checkpoint's tensors."""
    _, positions, dim = checkpoint.shape("pos_embed", "ATST-Frame")
    hidden = checkpoint.shape("blocks.0.mlp.fc1.weight", "ATST-Frame")[0]
    with torch.device("meta"):
        model = ATSTFrame(dim, checkpoint.count("blocks"), num_heads, hidden, positions)
    state = {
        key.replace("patch_embed.patch_embed.", "patch_embed.").replace("norm_frame.", "norm."): tensor
        for key, tensor in checkpoint.state.items()
    }
    load_into(model, checkpoint.with_state(state), ignored=IGNORED)
    return model


ATST_FRAME = EncoderSpec(
    name="atst_frame",
    build=build_atst_frame,
    sample_rate=16_000,
    clip_seconds=10.0,
    dim=768,
    depth=12,
    has_cls=False,
    grid=(1, 250),
    frontend="mel spectrogram, 64 mel from 60 to 7800 Hz, n_fft 1024, hop 160, dB down to 80 below the "
    "clip's peak; -79.6482 to 50.6842 dB become -1 to 1",
    padding="none: the clip's own length; beyond 10 s in chunks of 1001 frames",
    tokens="norm of the last block",
    clip_vector="the means of all 12 blocks, each normed, side by side",
    weights=None,
    needs_weights=True,
    licence="CC BY 4.0 (LICENSE file, of the checkpoints only; nothing said of the code)",
    source="Li et al. 2024, Self-supervised Audio Teacher-Student Transformer for Both Clip-level and "
    "Frame-level Tasks, arXiv:2306.04186; github.com/Audio-WestlakeU/audiossl @ec3a14d",
    checked="golden arrays of the authors' code on seeded weights; published weights not checked",
)
