"""Encoders that timm's VisionTransformer expresses exactly: AudioMAE, Bird-MAE, ASiT."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from featcache.encoders.attention import heads_of
from featcache.encoders.base import Encoded
from featcache.encoders.patches import PatchEncoder, Patches, require_layers
from featcache.weights.checkpoint import Checkpoint, load_into

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

Positions = Callable[[Tensor, int], Tensor]  # (stored table, columns) -> table


class ViTEncoder(PatchEncoder):
    """A timm ViT over the (time, mel) image, whose patches are time-major."""

    def __init__(self, vit: Any, patches: Patches, *, clip_seconds: float, architecture: str) -> None:
        normed = not isinstance(vit.norm, nn.Identity)
        about = {
            "architecture": architecture,
            "tokens": "norm of the last block" if normed else "last block, no norm",
            "num_heads": vit.blocks[0].attn.num_heads,
        }
        super().__init__(
            patches,
            clip_seconds=clip_seconds,
            dim=vit.embed_dim,
            depth=len(vit.blocks),
            has_cls=vit.cls_token is not None,
            about=about,
        )
        self.vit: Any = vit  # timm says no more than nn.Module of its parts

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        """Features (B, frames, mels) to the outputs of ``layers``; the last one is normed."""
        wanted = require_layers(layers, 1, self.depth)
        outputs = self.vit.forward_intermediates(
            features[:, None],
            indices=[layer - 1 for layer in wanted],
            return_prefix_tokens=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        tokens, cls = {}, {}
        for layer, output in zip(wanted, outputs, strict=True):
            norm = self.vit.norm if layer == self.depth else nn.Identity()
            patches, prefix = output if isinstance(output, tuple) else (output, None)
            tokens[layer] = norm(patches)
            if self.has_cls:
                cls[layer] = norm(prefix[:, 0])
        return Encoded(tokens, cls or None)


def mae_vit(
    checkpoint: Checkpoint,
    patches: Patches,
    positions: Positions,
    *,
    architecture: str,
    num_heads: int | None,
    ignored: Sequence[str],
    final_norm: bool = True,
) -> "VisionTransformer":
    """The ViT of an MAE-style checkpoint: sizes are read off its tensors.

    A fine-tuned checkpoint has no ``norm``; then the tokens of the last block stay as they are.

    Args:
        num_heads: shapes do not tell it (`heads_of`)
        final_norm: false leaves the last block of a pre-trained checkpoint as it is
    """
    # Here, not above: timm brings torchvision, which takes seconds, and most runs need neither.
    from timm.models.vision_transformer import VisionTransformer

    dim = checkpoint.shape("pos_embed", architecture)[-1]
    hidden = checkpoint.shape("blocks.0.mlp.fc1.weight", architecture)[0]
    with torch.device("meta"):
        vit = VisionTransformer(
            img_size=(patches.frames, patches.fbank.num_mels),
            patch_size=patches.patch,
            in_chans=1,
            num_classes=0,
            embed_dim=dim,
            depth=checkpoint.count("blocks"),
            num_heads=heads_of(checkpoint, dim, num_heads),
            mlp_ratio=hidden / dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            final_norm=final_norm and "norm.weight" in checkpoint.state,
            weight_init="skip",
        )
    table = checkpoint.state["pos_embed"]
    fitted = torch.cat([table[:, :1], positions(table[:, 1:], patches.grid[1])], dim=1)
    state = {**checkpoint.state, "pos_embed": fitted}
    load_into(vit, checkpoint.with_state(state), ignored=ignored if final_norm else (*ignored, "norm."))
    return vit


E = TypeVar("E", bound=nn.Module)


def freeze(encoder: E) -> E:
    """In evaluation mode and without gradients."""
    return encoder.eval().requires_grad_(False)
