"""The first clips of a cache, looked at before any is stored: scales for its channels, and what is lost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from crc32c import crc32c
from torch import Tensor

from featcache.cache.format.channels import (
    MOST_FLATTENED,
    Array,
    channel_errors,
    channel_scale,
    flattened,
)
from featcache.cache.format.durable import publish_file
from featcache.cache.format.layout import ArraySpec, CacheLayout
from featcache.cache.format.quantize import round_trip
from featcache.cache.read.columns import read_scale
from featcache.cache.write.plain import largest_magnitudes
from featcache.errors import InputError

_TOKENS = 512  # spread over the sample: enough to see which channels are lost
_OTHERS = ("int8", "float16", "bfloat16", "float32")  # by bytes


def publish_scales(cache: Path, layout: CacheLayout, sample: Mapping[int, Sequence[Tensor]]) -> None:
    """Write down the scales of channels that follow from a sample, where no writer has done so.

    Args:
        sample: layer -> the valid tokens of a few clips, (n, D) each
    """
    for layer, clips in sample.items():
        spec = layout.channel_scale(layer)
        if not (cache / spec.only_file).exists():
            write_scale(cache, spec, channel_scale(_largest(clips, layout.dim)))


def write_scale(cache: Path, spec: ArraySpec, scale: Array) -> None:
    """Write down the scales (D,) of one layer's channels, unless some are there."""
    content = scale.astype("<f4").tobytes()
    (cache / spec.name).mkdir(parents=True, exist_ok=True)
    publish_file(cache / spec.only_file, content + crc32c(content).to_bytes(4, "little"))


def stored_scales(cache: Path, layout: CacheLayout) -> dict[int, Tensor] | None:
    """The scales of channels by layer; None where they have not been written down yet.

    Raises:
        CacheError: one cannot be read or is damaged.
    """
    specs = {layer: layout.channel_scale(layer) for layer in layout.layers}
    if not all((cache / spec.only_file).exists() for spec in specs.values()):
        return None
    return {layer: torch.from_numpy(read_scale(cache, spec)) for layer, spec in specs.items()}


def check_dtype(layout: CacheLayout, sample: Mapping[int, Sequence[Tensor]]) -> None:
    """Refuse a storage dtype in which channels of these tokens would be lost.

    A channel is flattened where the error of what is stored is more than half of its variance.

    Raises:
        InputError: more than one channel in a hundred is; the message names a dtype that keeps them.
    """
    for layer, clips in sample.items():
        step = max(1, sum(map(len, clips)) // _TOKENS)
        tokens = torch.cat([clip[::step].float() for clip in clips])
        if layout.dtype == "float32" or not len(tokens) or not tokens.isfinite().all():
            continue  # what is not finite is refused clip by clip
        scale = torch.from_numpy(channel_scale(_largest(clips, layout.dim)))
        lost = _lost(tokens, layout.dtype, scale if layout.scales_channels else None)
        if lost > MOST_FLATTENED:
            fits = next(name for name in _OTHERS if _lost(tokens, name, scale) <= MOST_FLATTENED)
            raise InputError(
                f"layer {layer}: {layout.dtype} would flatten {lost:.0%} of the channels (the error is more "
                f"than half of their variance); store it as {fits}",
                options=("store_dtype",),
            )


def _lost(tokens: Tensor, dtype: str, scale: Tensor | None) -> float:
    """The fraction of channels that are lost; NaN where a value is beyond the range of the dtype."""
    stored = round_trip(tokens, dtype, scale)
    if not stored.isfinite().all():  # refused clip by clip, too
        return float("nan")
    return flattened(channel_errors(tokens.numpy(), stored.numpy()))


def _largest(clips: Sequence[Tensor], dim: int) -> Array:
    """Of each channel, over all clips that are finite: (D,) float32."""
    heard = [largest_magnitudes(clip) for clip in clips if len(clip)]
    finite = [own for own in heard if np.isfinite(own).all()]
    largest: Array = np.max([np.zeros(dim, dtype=np.float32), *finite], axis=0)
    return largest
