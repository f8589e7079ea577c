"""One file through one encoder: does this checkpoint work?"""

import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from featcache.audio.load import load_clip
from featcache.encoders.base import Encoder, decode_seconds

OUTLIER = 20.0  # times the median channel: real checkpoints have such, seeded ones do not
_MOST = 3  # outlier channels shown of a layer


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """Numbers of one layer's tokens that stand for audio."""

    layer: int
    mean: float
    sd: float
    largest: float  # of absolute values
    outliers: dict[int, float]  # channel -> its largest value over that of the median channel


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What an encoder makes of one file."""

    path: str
    clip_seconds: float  # [s] what was decoded
    encode_seconds: float  # [s] front end and encoder, on the CPU
    grid: tuple[int, int]  # (F, T) of a full clip
    valid: int  # tokens that stand for audio
    dim: int
    weights: str  # "pre-trained" or "fine-tuned, 527 classes"; "no classifier known" where it cannot be told
    layers: list[LayerFacts]
    classes: list[tuple[str, float]]  # the most probable, with their sigmoid; empty without a classifier


def try_encoder(encoder: Encoder, path: Path, top: int = 5) -> Tried:
    """Run every layer of an encoder on one file and look at the tokens; and the checkpoint's own classes.

    Raises:
        AudioError: the file cannot be decoded, or is too short for the encoder.
    """
    sound = load_clip(path, sample_rate=encoder.sample_rate, max_seconds=decode_seconds(encoder)).waveform
    layers = list(range(min(1, encoder.depth), encoder.depth + 1))
    began = time.perf_counter()
    with torch.inference_mode():
        encoded = encoder(torch.stack(encoder.frontend([sound])), layers)
    took = time.perf_counter() - began
    valid = encoder.valid_tokens(len(sound))
    head = getattr(encoder, "classifier", None)
    if head is None:
        weights = "pre-trained, or no classifier that is known"
    else:
        weights = f"fine-tuned, {len(head.bias)} classes"
    return Tried(
        path=str(path),
        clip_seconds=len(sound) / encoder.sample_rate,
        encode_seconds=took,
        grid=encoder.grid,
        valid=valid,
        dim=encoder.dim,
        weights=weights,
        layers=[_facts(layer, encoded.tokens[layer][0, :valid].float()) for layer in layers],
        classes=[] if head is None else _classes(encoder, head, sound, top),
    )


def _facts(layer: int, tokens: Tensor) -> LayerFacts:
    largest = tokens.abs().amax(0)  # (D,)
    ratios = largest / largest.median().clamp_min(1e-12)
    order = [channel for channel in ratios.argsort(descending=True).tolist() if ratios[channel] >= OUTLIER]
    return LayerFacts(
        layer=layer,
        mean=tokens.mean().item(),
        sd=tokens.std(correction=0).item(),
        largest=largest.max().item(),
        outliers={channel: ratios[channel].item() for channel in order[:_MOST]},
    )


def _classes(encoder: Any, head: Any, sound: Tensor, top: int) -> list[tuple[str, float]]:
    logits = encoder.logits([sound])[0]
    names = head.names or (audioset_names() if len(logits) == 527 else ())
    best = logits.argsort(descending=True)[:top].tolist()  # the sigmoids of several may be 1
    return [(names[index] if names else f"class {index}", logits[index].sigmoid().item()) for index in best]


@lru_cache(maxsize=1)
def audioset_names() -> tuple[str, ...]:
    """The 527 classes of AudioSet in the order of its ``class_labels_indices.csv`` (Google, CC BY 4.0).

    >>> audioset_names()[74]
    'Dog'
    """
    text = (files("featcache.encoders") / "audioset.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
