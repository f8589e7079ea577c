"""Dasheng: one token per 40 ms of a 64-band mel spectrogram, no cls, any length in chunks."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from featcache.audio.melspec import MelDecibels
from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.blocks import run_blocks
from featcache.encoders.classifier import mean_of_tokens, read_classifier
from featcache.encoders.mel_encoder import MelEncoder
from featcache.encoders.vit import freeze
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

# Classifier of the AudioSet fine-tuning.
IGNORED = ("outputlayer.",)

_RENAMED = {
    "front_end.0.spectrogram.window": "front_end.window",
    "front_end.0.mel_scale.fb": "front_end.bank",
}


class Dasheng(nn.Module):
    """Tokens of whole spectrograms, attending within chunks of as many as there are positions.

    Source:
        RicherMans/Dasheng @db73093, PyPI dasheng 0.0.9 (0.0.4 and the Hugging Face port cut the
        frames instead and pad the last chunk; they give other tokens beyond 10.08 s)
    """

    def __init__(self, dim: int, depth: int, num_heads: int, chunk: int) -> None:
        from timm.models.vision_transformer import Block

        super().__init__()
        self.front_end = MelDecibels()
        self.init_bn = nn.BatchNorm1d(64)
        self.patch_embed = nn.Conv2d(1, dim, (64, 4), (64, 4))
        self.time_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, chunk))
        self.freq_pos_embed = nn.Parameter(torch.zeros(1, dim, 1, 1))
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(dim)

    def forward(self, features: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Decibels (B, frames, 64) to tokens (B, frames // 4, D); the last layer is normed."""
        bands = self.init_bn(features.transpose(1, 2))  # float32 also under autocast
        tokens = self.patch_embed(bands[:, None]).flatten(2).transpose(1, 2)  # (B, n, D)
        chunks = [self._chunk(part, layers) for part in tokens.split(self.time_pos_embed.shape[-1], dim=1)]
        return {layer: torch.cat([chunk[layer] for chunk in chunks], dim=1) for layer in layers}

    def _chunk(self, tokens: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        positions = self.time_pos_embed[..., : tokens.shape[1]] + self.freq_pos_embed
        hidden = run_blocks(self.blocks, tokens + positions[:, :, 0].transpose(1, 2), layers)
        depth = len(self.blocks)
        return {layer: self.norm(state) if layer == depth else state for layer, state in hidden.items()}


def build_dasheng(
    weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None
) -> Encoder:
    """Dasheng for clips of up to ``clip_seconds`` (10 unless given), Zenodo or Hugging Face files."""
    checkpoint = load_checkpoint(weights).without("encoder.")
    _, dim, _, chunk = checkpoint.shape("time_pos_embed", "Dasheng")
    heads = heads_of(checkpoint, dim, num_heads)
    dasheng = load_dasheng(checkpoint, heads)
    about = {"architecture": "Dasheng", "tokens": "norm of the last block", "num_heads": heads}
    encoder = MelEncoder(
        dasheng,
        dasheng.front_end,
        clip_seconds=10.0 if clip_seconds is None else clip_seconds,
        rows=1,
        columns=lambda frames: frames // 4,
        whole=lambda features: features[: len(features) // 4 * 4],
        shortest_frames=4,
        dim=dim,
        depth=len(dasheng.blocks),
        about={**about, "chunk_tokens": chunk},
    )
    encoder.classifier = read_classifier(
        checkpoint, "outputlayer.1", mean_of_tokens, norm="outputlayer.0", eps=1e-5
    )
    return freeze(encoder)


def load_dasheng(checkpoint: Checkpoint, num_heads: int) -> Dasheng:
    """The model, sized by the checkpoint's tensors; its own window and mel bank where it has them."""
    _, dim, _, chunk = checkpoint.shape("time_pos_embed", "Dasheng")
    with torch.device("meta"):
        dasheng = Dasheng(dim, checkpoint.count("blocks"), num_heads, chunk)
    computed = {f"front_end.{key}": tensor for key, tensor in MelDecibels().state_dict().items()}
    counter = {"init_bn.num_batches_tracked": torch.tensor(0)}
    state = {**computed, **counter, **rename(checkpoint.state)}
    load_into(dasheng, checkpoint.with_state(state), ignored=IGNORED)
    return dasheng


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names."""
    named = {}
    for key, tensor in state.items():
        key = key.replace("init_bn.1.", "init_bn.").replace("patch_embed.proj.", "patch_embed.")
        named[_RENAMED.get(key, key)] = tensor
    return named


_spec = partial(
    EncoderSpec,
    build=build_dasheng,
    sample_rate=16_000,
    clip_seconds=10.0,
    has_cls=False,
    grid=(1, 250),
    frontend="mel spectrogram, 64 mel, n_fft 512, hop 160, dB down to 120 below the clip's peak; batch norm",
    padding="none: the clip's own length; beyond 10.08 s tokens attend within chunks of 252",
    tokens="norm of the last block",
    clip_vector="mean",
    needs_weights=True,
    licence="Apache-2.0 (repository; no separate licence for the weights)",
    source="Dinkel et al. 2024, Scaling up masked audio encoder learning for general audio classification, "
    "arXiv:2406.06992; github.com/RicherMans/Dasheng @db73093",
    checked="golden arrays of the authors' package on seeded weights; published weights not checked",
)
_ZENODO = "https://zenodo.org/records/11511780/files/dasheng_{}.pt?download=1"

DASHENG_BASE = _spec(name="dasheng", dim=768, depth=12, weights=_ZENODO.format("base"))
DASHENG_06B = _spec(name="dasheng-0.6b", dim=1280, depth=32, weights=_ZENODO.format("06b"))
DASHENG_12B = _spec(name="dasheng-1.2b", dim=1536, depth=40, weights=_ZENODO.format("12b"))
