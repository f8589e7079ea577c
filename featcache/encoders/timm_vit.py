"""``timm:MODEL``: any timm VisionTransformer over spectrogram images."""

from difflib import get_close_matches
from functools import partial
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from featcache.audio.fbank import KaldiFbank
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.patches import Patches, clip_frames, round_up
from featcache.encoders.vit import ViTEncoder, freeze
from featcache.errors import InputError, MissingError
from featcache.weights.checkpoint import load_checkpoint, load_into
from featcache.weights.download import hub_client, unreachable

IGNORED = ("head.", "fc_norm.", "attn_pool.")


def timm_spec(name: str) -> EncoderSpec:
    """The spec of ``timm:MODEL``, with AudioMAE's filter bank and padding.

    >>> timm_spec("timm:vit_tiny_patch16_224").grid
    (8, 64)
    """
    with torch.device("meta"):
        vit = _create(name, frames=1024, pretrained=False)
    patches = _patches(vit, frames=1024)
    return EncoderSpec(
        name=name,
        build=partial(build_timm, name),
        sample_rate=16_000,
        clip_seconds=10.0,
        dim=vit.embed_dim,
        depth=len(vit.blocks),
        has_cls=vit.cls_token is not None,
        grid=patches.grid,
        frontend="Kaldi fbank, 128 mel, hanning, waveform mean removed; (x + 4.2677393) / (2 * 4.5689974)",
        padding="zeros after the log-mel, before normalisation, up to a multiple of 128 frames",
        tokens="norm of the last block where the model has one; positions resampled by timm",
        clip_vector="not stated",
        weights=None,  # timm knows them itself
        needs_weights=False,
        licence="see the model's card",
        source="Wightman, PyTorch Image Models, github.com/huggingface/pytorch-image-models",
        checked="shapes only",
    )


def build_timm(name: str, weights: str | None = None, clip_seconds: float | None = None) -> Encoder:
    """The encoder; without ``weights`` timm fetches its own.

    Raises:
        InputError: timm has no such ViT.
        MissingError: its weights cannot be fetched.
    """
    seconds = 10.0 if clip_seconds is None else clip_seconds
    frames = round_up(clip_frames(KaldiFbank(sample_rate=16_000), seconds), 128)
    vit = _create(name, frames=frames, pretrained=weights is None)
    if weights is not None:
        checkpoint = load_checkpoint(weights)
        fitted = checkpoint_filter_fn(dict(checkpoint.state), vit)  # resamples patches and positions
        load_into(vit, checkpoint.with_state(fitted), ignored=IGNORED)
    return freeze(ViTEncoder(vit, _patches(vit, frames), clip_seconds=seconds, architecture=name))


def _create(name: str, *, frames: int, pretrained: bool) -> Any:
    model = name.removeprefix("timm:")
    if not model.startswith("hf-hub:") and not timm.is_model(model):
        near = get_close_matches(model, timm.list_models("*vit*"), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "timm.list_models('*vit*') names them"
        raise InputError(f"timm has no model {model!r}; {hint}")
    options = {"in_chans": 1, "num_classes": 0, "img_size": (frames, 128)}
    try:
        with hub_client():
            vit = timm.create_model(model, pretrained=pretrained, **options)
    except TypeError as error:
        raise InputError(
            f"{name} takes no image size, so it is no VisionTransformer; choose a ViT"
        ) from error
    except Exception as error:  # the transport's own classes differ between versions of the hub client
        if not pretrained and timm.is_model(model):
            raise
        raise MissingError(unreachable(name, error)) from error
    if not isinstance(vit, VisionTransformer):
        raise InputError(f"{name} is a {type(vit).__name__}, not a VisionTransformer; choose a ViT")
    return vit


def _patches(vit: Any, frames: int) -> Patches:
    size = vit.patch_embed.patch_size[0]
    fbank = KaldiFbank(sample_rate=16_000)
    return Patches(fbank=fbank, mean=-4.2677393, scale=2 * 4.5689974, frames=frames, patch=size, stride=size)
