"""From a name to an encoder: built in, of timm or transformers, of a user's file, or of a package."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from featcache.arguments import CLIP_SECONDS, check
from featcache.encoders.base import Encoder, EncoderSpec
from featcache.encoders.options import read_options
from featcache.encoders.table import ENCODERS
from featcache.errors import InputError, unknown
from featcache.plugins import entry_point, entry_point_names, from_file

ENTRY_POINTS = "featcache.encoders"
_NEEDED = ("sample_rate", "clip_seconds", "grid", "dim", "depth", "has_cls")
_MEMBERS = (*_NEEDED, "frontend", "valid_tokens", "settings", "__call__")
_UNSAID = "not stated"
_HOW = "docs/adding-an-encoder.md has a complete example"


def encoder_spec(name: str) -> EncoderSpec:
    """What is true of an encoder before any audio is seen.

    Args:
        name: one of ``ENCODERS``, ``hf:OWNER/NAME``, ``timm:MODEL``, ``path/to/file.py:Class``, or the
            name of an entry point in the group ``featcache.encoders``.

    Raises:
        InputError: there is no such encoder.

    >>> encoder_spec("logmel").grid
    (8, 64)
    """
    if name in ENCODERS:
        return ENCODERS[name]
    if name.startswith("timm:"):
        from featcache.encoders.timm_vit import timm_spec

        return timm_spec(name)
    if name.startswith("hf:"):
        from featcache.encoders.hf import hf_spec

        return hf_spec(name)
    if ".py:" in name:
        return _described(name, from_file(name, "encoder").target)
    target = entry_point(ENTRY_POINTS, name)
    if target is not None:
        return _described(name, target)
    raise unknown("encoder", name, encoder_names())


def encoder_names() -> list[str]:
    """The built-in encoders, then those of installed packages."""
    installed = entry_point_names(ENTRY_POINTS)
    return [*ENCODERS, *sorted(installed - ENCODERS.keys())]


def build_encoder(
    name: str,
    weights: str | None = None,
    clip_seconds: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """The frozen encoder of a name, for clips of one length.

    Args:
        name: as for `encoder_spec`.
        weights: a path, ``hf-hub:owner/name`` or a URL; by default those of the spec.
        clip_seconds: [s] by default the authors' own.
        options: what this encoder takes beyond that, such as ``{"num_heads": 4}``.

    Raises:
        InputError: no such encoder or option, no weights, or a clip length that it cannot take.

    >>> build_encoder("logmel", clip_seconds=5).grid
    (8, 32)
    """
    check({"clip_seconds": CLIP_SECONDS}, {"clip_seconds": clip_seconds})
    if name.startswith("hf:"):  # its spec is made by reading it, which an option may have to allow
        from featcache.encoders.hf import build_hf

        build: Callable[..., Encoder] = partial(build_hf, name)
    else:
        spec = encoder_spec(name)
        weights, build = weights or spec.weights, spec.build
        if weights is None and spec.needs_weights:
            raise InputError(
                f"the weights of {name} have no address to fetch them from; give the path of those that its "
                f"authors publish ({spec.source})",
                options=("weights",),
            )
    encoder: Encoder = build(weights, clip_seconds, **read_options(name, build, options or {}))
    missing = [member for member in _MEMBERS if not hasattr(encoder, member)]
    if missing:
        raise InputError(f"{name} lacks {', '.join(missing)}; {_HOW}")
    return encoder


def _described(name: str, target: Any) -> EncoderSpec:
    """The spec of a user's encoder: its own, or read off the attributes of its class."""
    if isinstance(target, EncoderSpec):
        return replace(target, name=name)
    missing = [attribute for attribute in _NEEDED if not hasattr(target, attribute)]
    if missing:
        raise InputError(f"{name} has no class attribute {', '.join(missing)}; {_HOW}")
    return EncoderSpec(
        name=name,
        build=target,
        sample_rate=target.sample_rate,
        clip_seconds=target.clip_seconds,
        dim=target.dim,
        depth=target.depth,
        has_cls=target.has_cls,
        grid=target.grid,
        frontend=_UNSAID,
        padding=_UNSAID,
        tokens=_UNSAID,
        clip_vector=_UNSAID,
        weights=None,
        needs_weights=False,
        licence=getattr(target, "licence", _UNSAID),
        source=getattr(target, "source", _UNSAID),
        checked="by its author",
    )
