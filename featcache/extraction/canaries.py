"""Canaries: a few stored clips are encoded again before a cache is trusted or grown.

A fingerprint sees weights and settings; it does not see a driver, a library or a kernel that
computes something else today. The tokens do.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from featcache.audio.mixup import decode_clip
from featcache.cache import TokenCache
from featcache.encoders.base import decode_seconds
from featcache.errors import AudioError, MismatchError
from featcache.extraction.batcher import tokens_of
from featcache.extraction.runner import Runner
from featcache.manifest import Clip

COUNT = 3
# Largest relative L2 difference that is still "the same tokens": what storing costs, plus what
# another device or kernel may change at this compute precision. The limits are ours.
STORED = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3, "int8": 3e-2, "int4": 3e-1}
COMPUTED = {torch.float32: 1e-3, torch.bfloat16: 3e-2, torch.float16: 1e-2}


def check_canaries(
    cache: TokenCache, clips: Mapping[bytes, Clip], runner: Runner, partners: Mapping[str, Clip]
) -> int:
    """Encode up to three of ``clips`` that ``cache`` holds and compare; the number compared.

    Args:
        partners: clips by id, for variants that others lie over

    Raises:
        MismatchError: the encoder no longer says what it said; the message gives the difference.
    """
    keys = list(clips)
    held = [(row, clips[key]) for key, row in zip(keys, cache.rows_of(keys), strict=True) if row is not None]
    chosen = {round(index * (len(held) - 1) / (COUNT - 1)) for index in range(COUNT)} if held else set()
    return sum(_compare(cache, *held[index], runner, partners) for index in sorted(chosen))


def _compare(cache: TokenCache, row: int, clip: Clip, runner: Runner, partners: Mapping[str, Clip]) -> bool:
    rate, seconds = runner.encoder.sample_rate, decode_seconds(runner.encoder)
    try:
        sound = decode_clip(clip, partners, sample_rate=rate, max_seconds=seconds)
    except AudioError:
        return False  # the file went away after its digest was remembered: nothing to compare
    encoded = tokens_of(runner, [sound.waveform])[0]
    limit = STORED[cache.dtype] + COMPUTED[runner.dtype]
    for layer, fresh in encoded.tokens.items():
        difference = _difference(fresh, _stored(cache, row, layer)[: len(fresh)])
        if not difference <= limit:
            raise MismatchError(
                f"{cache.path}: clip {clip.id!r} no longer encodes to the tokens stored (layer {layer}: "
                f"relative difference {difference:.2g}, allowed {limit:.2g}); weights, a library or the "
                "device changed since: extract to another place",
                options=("out",),
            )
    return True


def _stored(cache: TokenCache, row: int, layer: int) -> Tensor:
    return cache.tokens([row], layer)[0].float()


def _difference(fresh: Tensor, stored: Tensor) -> float:
    return float((fresh - stored).norm() / stored.norm().clamp(min=1e-12))
