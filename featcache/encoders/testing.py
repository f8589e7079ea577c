"""The contract of an encoder as a check that tells its author what is wrong."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from featcache.contract import hold_to
from featcache.encoders.base import Encoded, Encoder
from featcache.encoders.registry import build_encoder

_FACTS: dict[str, type | tuple[type, ...]] = {
    "sample_rate": int,
    "clip_seconds": (int, float),
    "grid": tuple,
    "dim": int,
    "depth": int,
    "has_cls": bool,
}


def check_encoder(
    encoder: Encoder | str,
    weights: str | None = None,
    clip_seconds: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Hold an encoder to what extraction relies on, with made-up sounds of several lengths.

    Not seen from outside, and so not checked: that tokens are time-major.

    Args:
        encoder: an encoder, or a name as for ``build_encoder``, which gets the rest.

    Raises:
        AssertionError: it breaks the contract; the message names every breach that was found.

    >>> check_encoder("logmel", clip_seconds=1)
    """
    if isinstance(encoder, str):
        encoder = build_encoder(encoder, weights, clip_seconds, options)
    with torch.inference_mode():
        hold_to(_CHECKS, encoder, type(encoder).__name__)


def _facts(encoder: Any) -> Iterator[str]:
    if not isinstance(encoder, nn.Module):
        yield "is not a torch.nn.Module, so its weights cannot be digested"
    for name, kind in _FACTS.items():
        value = getattr(encoder, name, None)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            yield f"{name} is {value!r}, not {kind.__name__ if isinstance(kind, type) else 'a number'}"
    for name in ("frontend", "valid_tokens", "settings"):
        if not callable(getattr(encoder, name, None)):
            yield f"has no method {name}"
    grid = getattr(encoder, "grid", None)
    if isinstance(grid, tuple) and not (len(grid) == 2 and all(isinstance(n, int) and n > 0 for n in grid)):
        yield f"grid is {grid}, not (F, T): frequency rows, time columns"


def _frozen(encoder: Any) -> Iterator[str]:
    if encoder.training:
        yield "is in training mode; call .eval() when it is built"
    trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    if trained:
        yield f"is not frozen ({trained[0]} requires a gradient); call .requires_grad_(False)"


def _settings(encoder: Any) -> Iterator[str]:
    settings = encoder.settings()
    try:
        text = json.dumps(settings, sort_keys=True)
    except TypeError as error:
        yield f"settings() is not JSON: {error}"
        return
    if text != json.dumps(encoder.settings(), sort_keys=True):
        yield "settings() differs from call to call; it is part of the cache's fingerprint"


def _valid_tokens(encoder: Any) -> Iterator[str]:
    rows, columns = encoder.grid
    full = _num_samples(encoder)
    counts = [encoder.valid_tokens(full * tenth // 10) for tenth in (4, 6, 8, 10, 12)]
    if any(not isinstance(count, int) for count in counts):
        yield f"valid_tokens gives {type(counts[0]).__name__}, not int"
    if counts != sorted(counts):
        yield f"valid_tokens falls as clips grow: {counts} for 0.4, 0.6, 0.8, 1 and 1.2 of a clip"
    if any(count % rows for count in counts):
        yield f"valid_tokens gives {counts}, not whole columns of F = {rows} tokens"
    if not 0 < counts[-1] <= rows * columns:
        yield f"valid_tokens gives {counts[-1]} for a full clip, not 1 to N = {rows * columns}"


def _frontend(encoder: Any) -> Iterator[str]:
    sounds = _sounds(encoder)
    before = [sound.clone() for sound in sounds]
    together = encoder.frontend(sounds)
    if not all(torch.equal(a, b) for a, b in zip(before, sounds, strict=True)):
        yield "frontend changes the waveforms it is given"
    if len(together) != len(sounds):
        yield f"frontend gives {len(together)} features for {len(sounds)} waveforms"
        return
    for index, (sound, features) in enumerate(zip(sounds, together, strict=True)):
        if features.dtype != torch.float32 or features.ndim < 1 or not features.isfinite().all():
            found = f"{features.dtype} {tuple(features.shape)}"
            yield f"frontend gives {found}, not finite float32 (frames, *) or (samples,)"
            return
        alone = encoder.frontend([sound])[0]
        if alone.shape != features.shape or (gap := _gap(alone, features)) > 1e-5:
            gap_words = f"by {gap:.1e}" if alone.shape == features.shape else "in shape"
            yield f"frontend of waveform {index} differs {gap_words} beside other waveforms"


def _tokens(encoder: Any) -> Iterator[str]:
    layers = _layers(encoder)
    rows, columns = encoder.grid
    for sound in _sounds(encoder):
        encoded = _encode(encoder, [sound, sound * 0.5], layers)
        if set(encoded.tokens) != set(layers):
            yield f"asked for layers {layers}, it gives {sorted(encoded.tokens)}"
            return
        valid = encoder.valid_tokens(len(sound))
        for layer, tokens in encoded.tokens.items():
            shape = tokens.shape
            if shape[::2] != (2, encoder.dim) or not valid <= shape[1] <= rows * columns:
                yield (
                    f"layer {layer} gives {tuple(shape)}, not (2, n, {encoder.dim}) with n from "
                    f"valid_tokens = {valid} to N = {rows * columns}"
                )
                return
            if not tokens.isfinite().all():
                yield f"layer {layer} has values that are not finite"
        yield from _cls(encoder, encoded, layers)


def _cls(encoder: Any, encoded: Encoded, layers: list[int]) -> Iterator[str]:
    if not encoder.has_cls:
        if encoded.cls is not None:
            yield "gives cls although has_cls is False; give None"
        return
    if encoded.cls is None or set(encoded.cls) != set(layers):
        yield "has_cls is True, but it does not give a cls for each layer"
    elif any(cls.shape != (2, encoder.dim) for cls in encoded.cls.values()):
        yield f"cls is {tuple(next(iter(encoded.cls.values())).shape)}, not (B, dim) = (2, {encoder.dim})"


def _alone_and_together(encoder: Any) -> Iterator[str]:
    layers = _layers(encoder)
    full = [sound for sound in _sounds(encoder) if len(sound) == _num_samples(encoder)]
    apart = [_encode(encoder, [sound], layers) for sound in full]
    for order in (list(range(len(full))), list(reversed(range(len(full))))):
        together = _encode(encoder, [full[index] for index in order], layers)
        for row, index in enumerate(order):
            for layer in layers:
                gap = _gap(apart[index].tokens[layer][0], together.tokens[layer][row])
                if gap > 1e-5:
                    yield f"layer {layer} of a clip changes by {gap:.1e} with its batch; it must not (1e-5)"
                    return


def _bfloat16(encoder: Any) -> Iterator[str]:
    layers = _layers(encoder)
    features = torch.stack(encoder.frontend(_sounds(encoder)[:1]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encoder(features, layers).tokens
    if not all(value.isfinite().all() for value in tokens.values()):
        yield "gives values that are not finite under bfloat16 autocast"


def _num_samples(encoder: Any) -> int:
    samples: int = round(encoder.clip_seconds * encoder.sample_rate)
    return samples


def _layers(encoder: Any) -> list[int]:
    """The last layer and, where there are several, the first."""
    return sorted({min(1, encoder.depth), encoder.depth})


def _sounds(encoder: Any) -> list[Tensor]:
    """Noise, the same loud and very quiet, silence, a tone; then a short clip."""
    full = _num_samples(encoder)
    noise = torch.randn(full, generator=torch.Generator().manual_seed(0))
    tone = torch.sin(torch.arange(full) * 0.1)
    return [
        0.1 * noise,
        noise.clamp(-1, 1),
        1e-4 * noise,
        torch.zeros(full),
        tone,
        0.1 * noise[: full * 2 // 5],
    ]


def _encode(encoder: Any, sounds: list[Tensor], layers: list[int]) -> Encoded:
    return Encoded(*encoder(torch.stack(encoder.frontend(sounds)), layers))


def _gap(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value where that is above one."""
    return ((a - b).abs().max() / a.abs().max().clamp_min(1.0)).item()


_CHECKS = (_facts, _frozen, _settings, _valid_tokens, _frontend, _tokens, _alone_and_together, _bfloat16)
