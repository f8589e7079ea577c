"""What the tokens of an extraction are of, and how they are laid out."""

from typing import Any

from featcache.audio.resample import RESAMPLER
from featcache.cache import CacheLayout
from featcache.extraction.runner import Runner
from featcache.manifest.variants import Mixup
from featcache.weights.checkpoint import weights_digest


def fingerprint_of(runner: Runner, name: str) -> dict[str, Any]:
    """What tokens are of: equal fingerprints, equal tokens.

    Args:
        name: of the encoder, without the path to a user's file or folder
    """
    encoder = runner.encoder
    return {
        "encoder": name,
        "weights": weights_digest(encoder),
        "settings": encoder.settings(),
        "clip_seconds": encoder.clip_seconds,
        "audio": {"sample_rate": encoder.sample_rate, "downmix": "mean", "resampler": RESAMPLER},
        "layers": list(runner.layers),
        "compute_dtype": str(runner.dtype).removeprefix("torch."),
    }


def layout_of(
    runner: Runner,
    name: str,
    store_dtype: str,
    codec: str | None,
    shard_clips: int | None,
    augment: Mixup | None,
) -> CacheLayout:
    """The layout of a cache for all that this encoder gives."""
    encoder, fingerprint = runner.encoder, fingerprint_of(runner, name)
    if augment:
        fingerprint["variants"] = augment.settings()
    rows, columns = encoder.grid
    return CacheLayout(
        fingerprint=fingerprint,
        layers=runner.layers,
        num_tokens=rows * columns,
        dim=encoder.dim,
        grid=encoder.grid,
        has_cls=encoder.has_cls,
        dtype=store_dtype,
        codec=codec,
        shard_clips=shard_clips,
    )
