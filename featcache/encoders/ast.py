"""AST, the supervised Audio Spectrogram Transformer, through transformers (extra ``hf``)."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from featcache.audio.fbank import KaldiFbank
from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.blocks import run_blocks
from featcache.encoders.classifier import cls_token, read_classifier
from featcache.encoders.patches import PatchEncoder, Patches, clip_frames, require_layers, round_up
from featcache.encoders.positions import stretch
from featcache.encoders.vit import freeze
from featcache.errors import InputError
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

IGNORED = ("classifier.",)

_NEEDS = "ast needs transformers 5; install it with: pip install 'transformers>=5,<6'"

# The published files have the names of transformers 4.
_RENAMED = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attention.\1."),
    (r"\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


class ASTEncoder(PatchEncoder):
    """transformers' ASTModel; its frequency-major tokens are turned to time-major.

    ``cls`` is the authors' clip vector: the mean of the cls and the distillation token.
    """

    def __init__(self, model: Any, patches: Patches, *, clip_seconds: float) -> None:
        config = model.config
        about = {
            "architecture": "AST",
            "tokens": "layernorm of the last layer",
            "num_heads": config.num_attention_heads,
        }
        dim, depth = config.hidden_size, config.num_hidden_layers
        super().__init__(patches, clip_seconds=clip_seconds, dim=dim, depth=depth, has_cls=True, about=about)
        self.model = model

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Features (B, frames, mels) to the outputs of ``layers``; the last one is normed."""
        hidden = run_blocks(
            self.model.layers, self.model.embeddings(features), require_layers(layers, 1, self.depth)
        )
        if self.depth in hidden:
            hidden[self.depth] = self.model.layernorm(hidden[self.depth])
        tokens = {layer: self._time_major(state[:, 2:]) for layer, state in hidden.items()}
        return Encoded(tokens, {layer: state[:, :2].mean(1) for layer, state in hidden.items()})

    def _time_major(self, tokens: Tensor) -> Tensor:
        B, N, D = tokens.shape
        return tokens.reshape(B, *self.grid, D).transpose(1, 2).reshape(B, N, D)


def build_ast(weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None) -> Encoder:
    """AST for clips of ``clip_seconds`` (10 unless given).

    Source:
        transformers 5.23 ``ASTModel`` and ``ASTFeatureExtractor``; YuanGongND/ast
    """
    seconds = 10.0 if clip_seconds is None else clip_seconds
    fbank = KaldiFbank(sample_rate=16_000, remove_mean=False)
    patches = Patches(
        fbank=fbank,
        mean=-4.2677393,
        scale=2 * 4.5689974,
        frames=round_up(clip_frames(fbank, seconds), 128),  # the authors' 128, 512, 1024 for 1, 5, 10 s
        stride=10,
        whole_clips=True,
    )
    checkpoint = load_checkpoint(weights).without("audio_spectrogram_transformer.")
    model = load_ast(checkpoint.with_state(rename(checkpoint.state)), patches, num_heads)
    encoder = ASTEncoder(model, patches, clip_seconds=seconds)
    encoder.classifier = read_classifier(
        checkpoint,
        "classifier.dense",
        cls_token,
        norm="classifier.layernorm",
        eps=model.config.layer_norm_eps,
    )
    return freeze(encoder)


def load_ast(checkpoint: Checkpoint, patches: Patches, num_heads: int | None) -> Any:
    """transformers' model, sized by the checkpoint's tensors."""
    try:
        from transformers import ASTConfig, ASTModel
    except ImportError as error:
        raise InputError(_NEEDS) from error
    table = "embeddings.position_embeddings"
    dim = checkpoint.shape(table, "AST")[-1]
    hidden = checkpoint.shape("layers.0.mlp.fc1.weight", "AST")[0]
    with torch.device("meta"):
        model = ASTModel(
            ASTConfig(
                hidden_size=dim,
                num_hidden_layers=checkpoint.count("layers"),
                num_attention_heads=heads_of(checkpoint, dim, num_heads),
                intermediate_size=hidden,
                max_length=patches.frames,
            )
        )
    if not hasattr(model, "layers"):  # transformers 4 has other names for its parts
        raise InputError(_NEEDS)
    positions = checkpoint.state[table]
    fitted = torch.cat([positions[:, :2], ast_positions(positions[:, 2:], patches.grid[1])], dim=1)
    load_into(model, checkpoint.with_state({**checkpoint.state, table: fitted}), ignored=IGNORED)
    return model


def ast_positions(table: Tensor, columns: int) -> Tensor:
    """AST's learned, frequency-major table for ``columns``.

    As the authors: shorter clips take the middle of it, longer ones stretch it linearly over time.

    Shape:
        - table: (1, 12 * stored columns, D)
        - output: (1, 12 * columns, D)
    """
    grid = table.reshape(1, 12, -1, table.shape[-1]).transpose(1, 2)  # (1, stored, F, D)
    start = max(0, grid.shape[1] // 2 - columns // 2)
    if columns <= grid.shape[1]:
        grid = grid[:, start : start + columns]
    fitted = stretch(grid.flatten(1, 2), columns, rows=12)
    return fitted.reshape(1, columns, 12, -1).transpose(1, 2).flatten(1, 2)


def rename(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under the names of transformers 5."""
    named = {}
    for key, tensor in state.items():
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        named[key] = tensor
    return named


AST = EncoderSpec(
    name="ast",
    build=build_ast,
    sample_rate=16_000,
    clip_seconds=10.0,
    dim=768,
    depth=12,
    has_cls=True,
    grid=(12, 101),
    frontend="Kaldi fbank, 128 mel, hanning, waveform mean kept; (x + 4.2677393) / (2 * 4.5689974)",
    padding="zeros after the log-mel, before normalisation, up to a multiple of 128 frames",
    tokens="layernorm of the last layer; patches of 16 every 10, turned to time-major",
    clip_vector="mean of the cls and distillation tokens, stored as cls",
    weights="hf-hub:MIT/ast-finetuned-audioset-10-10-0.4593",
    needs_weights=True,
    licence="BSD-3-Clause (model card)",
    source="Gong et al. 2021, AST: Audio Spectrogram Transformer, arXiv:2104.01778; "
    "github.com/YuanGongND/ast, transformers 5.23",
    checked="golden arrays of transformers on seeded weights; published weights not checked",
)
