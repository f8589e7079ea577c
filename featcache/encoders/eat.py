"""EAT and SSLAM: one architecture, post-norm blocks, many checkpoints."""

import re
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from featcache.audio.fbank import KaldiFbank
from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoded, Encoder, EncoderSpec
from featcache.encoders.blocks import run_blocks
from featcache.encoders.classifier import cls_token, read_classifier
from featcache.encoders.patches import PatchEncoder, Patches, clip_frames, require_layers, round_up
from featcache.encoders.positions import sincos
from featcache.encoders.vit import freeze
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into

# Decoder of pre-training, the teacher where it is not nested, classifier of fine-tuning.
IGNORED = ("decoder.", "_ema.", "fc_norm.", "head.")

# fairseq's names, then the Hugging Face port's, to ours.
_RENAMED = (
    (r"^model\.", ""),
    (r"^modality_encoders\.IMAGE\.", ""),
    (r"^context_encoder\.norm\.", "pre_norm."),
    (r"^local_encoder\.proj\.", "patch_embed."),
    (r"^fixed_positional_encoder\.", ""),
    (r"^extra_tokens$", "cls_token"),
)


class Block(nn.Module):
    """Norm after each residual sum: x = norm(x + f(x)).

    timm's ResPostBlock norms the branch instead, which is another function.
    """

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        from timm.layers import Mlp
        from timm.models.vision_transformer import Attention

        self.attn = Attention(dim, num_heads=num_heads, qkv_bias=True)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, hidden_features=hidden)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x))
        out: Tensor = self.norm2(x + self.mlp(x))
        return out


class EAT(nn.Module):
    """Patches plus fixed positions, a cls without one, norm, blocks; no norm at the end."""

    positions: Tensor

    def __init__(self, dim: int, depth: int, num_heads: int, hidden: int, num_tokens: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(1, dim, 16, 16)
        self.register_buffer("positions", torch.zeros(1, num_tokens, dim))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pre_norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = nn.ModuleList(Block(dim, num_heads, hidden) for _ in range(depth))

    def forward(self, features: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Features (B, frames, mels) to hidden states (B, 1 + N, D), cls first."""
        patches = self.patch_embed(features[:, None]).flatten(2).transpose(1, 2)  # (B, N, D)
        patches = patches + self.positions
        hidden = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)
        return run_blocks(self.blocks, self.pre_norm(hidden), layers)


class EATEncoder(PatchEncoder):
    """EAT over padded patches."""

    def __init__(self, eat: EAT, patches: Patches, *, clip_seconds: float, num_heads: int) -> None:
        dim, depth = eat.cls_token.shape[-1], len(eat.blocks)
        about = {"architecture": "EAT", "tokens": "last block (post-norm)", "num_heads": num_heads}
        super().__init__(patches, clip_seconds=clip_seconds, dim=dim, depth=depth, has_cls=True, about=about)
        self.eat = eat

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Features (B, frames, mels) to the outputs of ``layers``."""
        hidden = self.eat(features, require_layers(layers, 1, self.depth))
        tokens = {layer: state[:, 1:] for layer, state in hidden.items()}
        return Encoded(tokens, {layer: state[:, 0] for layer, state in hidden.items()})


def build_eat(weights: str, clip_seconds: float | None = None, *, num_heads: int | None = None) -> Encoder:
    """EAT or SSLAM for clips of ``clip_seconds`` (10 unless given), from fairseq or Hugging Face files.

    Source:
        cwx-worst-one/EAT @06c1c34, models/ and feature_extract/; ta012/SSLAM @0a3c0ff is the same
    """
    seconds = 10.0 if clip_seconds is None else clip_seconds
    fbank = KaldiFbank(sample_rate=16_000)
    # The authors take 1024 frames for 10 s and otherwise the next multiple of 16.
    frames = 1024 if seconds == 10.0 else round_up(clip_frames(fbank, seconds), 16)
    patches = Patches(fbank=fbank, mean=-4.268, scale=2 * 4.569, frames=frames, whole_clips=True)
    checkpoint = load_checkpoint(weights)
    named = checkpoint.with_state(rename(checkpoint.state))
    named.shape("positions", "EAT")
    heads = heads_of(checkpoint, named.shape("cls_token", "EAT")[-1], num_heads)
    eat = load_eat(named, patches, heads)
    encoder = EATEncoder(eat, patches, clip_seconds=seconds, num_heads=heads)
    # The norm's eps is fairseq's; the Hugging Face port has 1e-5, which moves logits by 4e-6.
    encoder.classifier = read_classifier(named, "head", cls_token, norm="fc_norm")
    return freeze(encoder)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A fairseq or Hugging Face state dict under our names."""
    named = {}
    for key, tensor in state.items():
        for pattern, name in _RENAMED:
            key = re.sub(pattern, name, key)
        named[key] = tensor
    return named


def load_eat(checkpoint: Checkpoint, patches: Patches, num_heads: int) -> EAT:
    """The model for one clip length, sized by the checkpoint's tensors."""
    dim = checkpoint.shape("cls_token", "EAT")[-1]
    hidden = checkpoint.shape("blocks.0.mlp.fc1.weight", "EAT")[0]
    rows, columns = patches.grid
    with torch.device("meta"):
        eat = EAT(dim, checkpoint.count("blocks"), num_heads, hidden, rows * columns)
    table = _positions(checkpoint.state["positions"], rows * columns)
    load_into(eat, checkpoint.with_state({**checkpoint.state, "positions": table}), ignored=IGNORED)
    return eat


def _positions(table: Tensor, num_tokens: int) -> Tensor:
    """The first rows of the stored table; it is sine-cosine in time-major order, so it can go on."""
    longer = sincos(-(-num_tokens // 8), 8, table.shape[-1]).to(table)
    return torch.cat([table, longer[:, table.shape[1] :]], dim=1)[:, :num_tokens]


_spec = partial(
    EncoderSpec,
    build=build_eat,
    sample_rate=16_000,
    clip_seconds=10.0,
    has_cls=True,
    grid=(8, 64),
    frontend="Kaldi fbank, 128 mel, hanning, waveform mean removed; (x + 4.268) / (2 * 4.569)",
    padding="zeros after the log-mel, before normalisation: 10 s to 1024 frames, else to a multiple of 16",
    tokens="last block (post-norm: it ends with a norm)",
    clip_vector="cls",
    needs_weights=True,
    checked="golden arrays of the authors' code on seeded weights; published weights not checked",
)
_EAT_SOURCE = (
    "Chen et al. 2024, EAT: Self-Supervised Pre-Training with Efficient Audio Transformer, "
    "arXiv:2401.03497; github.com/cwx-worst-one/EAT @06c1c34"
)

EAT_BASE = _spec(
    name="eat",
    dim=768,
    depth=12,
    weights="hf-hub:worstchan/EAT-base_epoch30_pretrain",
    licence="MIT (repository; the model card of the fine-tuned checkpoint says so too)",
    source=_EAT_SOURCE,
)
EAT_LARGE = _spec(
    name="eat-large",
    dim=1024,
    depth=24,
    weights="hf-hub:worstchan/EAT-large_epoch20_pretrain",
    licence="MIT (repository; this model card not seen)",
    source=_EAT_SOURCE,
)
SSLAM = _spec(
    name="sslam",
    dim=768,
    depth=12,
    weights="hf-hub:ta012/SSLAM_pretrain",
    licence="MIT (repository; model card not seen)",
    source="Alex et al. 2025, SSLAM: Enhancing Self-Supervised Models with Audio Mixtures, ICLR 2025; "
    "github.com/ta012/SSLAM @0a3c0ff",
)
