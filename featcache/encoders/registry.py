"""From a name to an encoder."""

from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.table import ENCODERS
from featcache.errors import InputError, unknown


def encoder_spec(name: str) -> EncoderSpec:
    """What is true of an encoder before any audio is seen.

    Raises:
        InputError: no encoder has that name.

    >>> encoder_spec("logmel").grid
    (8, 64)
    """
    if name not in ENCODERS:
        raise unknown("encoder", name, sorted(ENCODERS))
    return ENCODERS[name]


def build_encoder(name: str, weights: str | None = None, clip_seconds: float | None = None) -> Encoder:
    """The frozen encoder of a name, for clips of one length.

    Args:
        weights: a path, ``hf-hub:owner/name`` or a URL; by default those of the spec.
        clip_seconds: [s] by default the authors' own.

    Raises:
        InputError: no such encoder, no weights, or a clip length that it cannot take.

    >>> build_encoder("logmel", clip_seconds=5).grid
    (8, 32)
    """
    spec = encoder_spec(name)
    if weights and not spec.needs_weights:
        raise InputError(f"{name} has no weights to load; leave out {weights}")
    weights = weights or spec.weights
    if weights is None and spec.needs_weights:
        raise InputError(f"the weights of {name} have no public address to fetch; give a checkpoint's path")
    return spec.build(weights, clip_seconds)
