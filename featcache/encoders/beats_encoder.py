"""BEATs checkpoints as encoders: their names, their configuration, their filter bank."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from featcache.audio.blocks import require_samples
from featcache.audio.fbank import KaldiFbank
from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.beats import BEATs, Sizes, sizes_of
from featcache.encoders.classifier import Classifies, mean_of_tokens, read_classifier
from featcache.encoders.patches import clip_frames, require_layers
from featcache.encoders.vit import freeze
from featcache.errors import MismatchError
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

# Classifier of fine-tuning; every layer stores the one bias table that all share; OpenBEATs counts
# padding with convolutions, and nothing is padded here.
IGNORED = ("predictor.", "decoder.", "shared_bias.", "patch_embedding_pad.", "raw2fbank_pad.")

_RENAMED = (
    (r"^encoder\.pos_conv\.0\.", "pos_conv."),
    (r"^encoder\.layer_norm\.", "encoder_norm."),
    (r"^encoder\.layers\.", "layers."),
    (r"^layers\.0\.self_attn\.relative_attention_bias\.", "relative_bias."),
    (r"^layers\.(\d+)\.self_attn\.relative_attention_bias\.", r"shared_bias.\1."),
)
_PARAMETRIZED = ("parametrizations.weight.original0", "parametrizations.weight.original1")
# What this implementation takes for granted, with the values of every published configuration.
_FIXED = {
    "layer_norm_first": False,
    "activation_fn": "gelu",
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "input_patch_size": 16,
    "conv_bias": False,
}


class BEATsEncoder(Classifies):
    """BEATs over the filter bank of the clip's own length: nothing is padded.

    Features keep all frames; the up to 15 that fill no patch are dropped by the patch convolution.
    """

    has_cls = False

    def __init__(self, beats: BEATs, *, clip_seconds: float, mean: float, std: float) -> None:
        super().__init__()
        # 16-bit scale, Kaldi's own window and no removal of the waveform's mean, as the authors.
        self.fbank = KaldiFbank(sample_rate=16_000, window="povey", gain=2.0**15, remove_mean=False)
        self.beats = beats
        self.mean, self.std = mean, std
        self.sample_rate = self.fbank.sample_rate
        self.clip_seconds = clip_seconds
        self.grid = (8, clip_frames(self.fbank, clip_seconds) // 16)
        self.dim, self.depth = beats.sizes.dim, beats.sizes.depth

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to normalised features (frames_i, 128), always float32."""
        for waveform in waveforms:
            self.valid_tokens(len(waveform))
        return self.fbank(waveforms, then=lambda log_mel: log_mel.sub_(self.mean).div_(2 * self.std))

    def valid_tokens(self, num_samples: int) -> int:
        """All tokens of the clip's own length."""
        shortest = self.fbank.frame_length + 15 * self.fbank.frame_shift
        require_samples(num_samples, shortest, self.sample_rate, "one patch")
        return 8 * min(self.grid[1], self.fbank.num_frames(num_samples) // 16)

    def whole_columns(self, features: Tensor) -> Tensor:
        """Features (frames, 128) without the frames at the end that fill no patch."""
        return features[: len(features) // 16 * 16]

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Features (B, frames, 128) to the outputs of ``layers``."""
        return Encoded(self.beats(features, require_layers(layers, 1, self.depth)), None)

    def settings(self) -> dict[str, Any]:
        """Preprocessing and architecture as JSON values."""
        norm = {"mean": self.mean, "std": self.std}
        return {"architecture": "BEATs", **asdict(self.beats.sizes), "fbank": asdict(self.fbank), **norm}


def build_beats(weights: str, clip_seconds: float | None = None) -> Encoder:
    """BEATs or OpenBEATs for clips of up to ``clip_seconds`` (10 unless given), from its own ``cfg``.

    Raises:
        MismatchError: the configuration asks for what no published BEATs has.
    """
    checkpoint = load_checkpoint(weights)
    config = checkpoint.config
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise MismatchError(
                f"{weights} has {key}={config[key]!r} in its cfg; only {value!r} is implemented"
            )
    encoder = BEATsEncoder(
        load_beats(checkpoint),
        clip_seconds=10.0 if clip_seconds is None else clip_seconds,
        mean=float(config.get("fbank_mean", 15.41663)),
        std=float(config.get("fbank_std", 6.55582)),
    )
    # Its authors score every token and average: the same, since the head is linear.
    encoder.classifier = read_classifier(
        checkpoint,
        "predictor",
        mean_of_tokens,
        names=[checkpoint.labels[i] for i in sorted(checkpoint.labels)],
    )
    return freeze(encoder)


def load_beats(checkpoint: Checkpoint) -> BEATs:
    """The model, sized by the checkpoint's tensors and configuration."""
    named = checkpoint.with_state(rename(checkpoint))
    for key in ("patch_embedding.weight", "pos_conv.weight", "relative_bias.weight", "layers.0.fc1.weight"):
        named.shape(key, "BEATs")
    sizes: Sizes = sizes_of({key: tensor.shape for key, tensor in named.state.items()}, checkpoint.config)
    with torch.device("meta"):
        beats = BEATs(sizes)
    load_into(beats, named, ignored=IGNORED)
    return beats


def rename(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The state dict under our names, with the weight norm of the convolution worked out."""
    if "encoder.patch_embedding.weight" in checkpoint.state:  # ESPnet keeps it in a larger model
        checkpoint = checkpoint.without("encoder.")
    named = {}
    for key, tensor in checkpoint.state.items():
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        named[key] = tensor
    return _without_weight_norm(named)


def _without_weight_norm(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = dict(named)
    for gain, direction in (("weight_g", "weight_v"), _PARAMETRIZED):
        if f"pos_conv.{gain}" in state:
            g, v = state.pop(f"pos_conv.{gain}"), state.pop(f"pos_conv.{direction}")
            state["pos_conv.weight"] = v * (g / torch.linalg.vector_norm(v, dim=(0, 1), keepdim=True))
    return state


_spec = partial(
    EncoderSpec,
    build=build_beats,
    sample_rate=16_000,
    clip_seconds=10.0,
    has_cls=False,
    grid=(8, 62),
    frontend="Kaldi fbank, 128 mel, povey, waveform * 2**15, mean kept; (x - 15.41663) / (2 * 6.55582)",
    padding="none: the clip's own length; up to 15 frames at the end that fill no patch are dropped",
    tokens="last layer (post-norm: it ends with a norm)",
    clip_vector="mean",
    weights=None,
    needs_weights=True,
)

BEATS = _spec(
    name="beats",
    dim=768,
    depth=12,
    licence="MIT (repository; nothing said of the weights)",
    source="Chen et al. 2023, BEATs: Audio Pre-Training with Acoustic Tokenizers, arXiv:2212.09058; "
    "github.com/microsoft/unilm @768a3c8, beats/",
    checked="golden arrays of the authors' code on seeded weights; published weights not checked",
)
OPENBEATS = _spec(
    name="openbeats",
    dim=1024,
    depth=24,
    licence="CC BY 4.0 (two espnet/OpenBEATS-* model cards; look at yours); code MIT",
    source="Bharadwaj et al. 2025, OpenBEATs: A Fully Open-Source General-Purpose Audio Encoder, "
    "arXiv:2507.14129; PyPI openbeats 0.1.1",
    checked="BEATs' golden arrays (its authors' package gives the same bits); not on weights of its own",
)
