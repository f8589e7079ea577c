"""A clip as a head hears it: its classes, where in the token map they come from, and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.explain.learned import Patch
from featcache.heads.explain.localise import evidence
from featcache.heads.explain.media import band_of
from featcache.heads.explain.opened import Opened
from featcache.heads.explain.tokenmaps import (
    ATTENTION,
    PROTOTYPES,
    activation_maps,
    attention_map,
    kind_of_map,
    mean_maps,
)
from featcache.heads.predicting.decide import probabilities
from featcache.heads.prototypical import ProtoFloat

Maps = NDArray[np.floating[Any]]
MOST_CLASSES = 4  # of a clip


@dataclass(frozen=True, kw_only=True)
class ClipView:
    """One clip."""

    clip: str
    kind: str  # what its maps show
    names: list[str]  # of classes, one a map
    texts: list[str]  # under each map
    maps: Maps  # (classes, F, T)
    said: str  # HTML


def clip_view(
    opened: Opened, clip: str, usual: Tensor | None, patches: dict[int, list[Patch]]
) -> ClipView | None:
    """What a head hears in a clip; None where it reads a cls token, which has no place.

    Args:
        usual: see `localise.usual_scores`; of prototypical heads alone
        patches: of each class, the best train patches of its first prototype
    """
    head, inputs = opened.head, opened.inputs(clip)
    assert opened.cache is not None
    cache, grid = opened.cache, opened.cache.grid
    with torch.inference_mode():
        logits = head(*inputs)[0].float().numpy()
    single = opened.config["task"] == "single-label"
    shares = probabilities(logits, single)
    truth = [opened.classes.index(name) for name in opened.clips[clip].labels if name in opened.classes]
    labels = _shown(logits, truth)
    kind = kind_of_map(head)
    if kind == PROTOTYPES and usual is not None and isinstance(head, ProtoFloat):
        maps = evidence(head, cache, opened.rows[clip], usual, opened.config["layer"])[labels]
    elif inputs[0] is None and head.reads == "cls" and cache.has_cls:
        return None
    elif inputs[0] is None:
        row = [opened.rows[clip]]
        maps = mean_maps(
            head, cache.tokens(row, opened.config["layer"]).float(), cache.mask(row), grid, labels
        )
    elif kind == ATTENTION:
        maps = attention_map(head, inputs, grid)[None]
        labels = labels[:1]
    else:
        maps = activation_maps(head, inputs, grid, labels)
    names = [opened.classes[label] for label in labels]
    texts = [
        f"{name}: {kind}" if kind != ATTENTION else "attention, the same for every class" for name in names
    ]
    heard = ", ".join(
        f"{escape(opened.classes[label])} {100 * shares[label]:.0f} %" for label in _shown(logits, [])
    )
    true = ", ".join(escape(opened.classes[label]) for label in truth) or "none that the head knows"
    said = f"Heard: {heard}. Labels: {true}."
    if kind == PROTOTYPES:
        said += " " + _because(opened, labels[0], maps[0].numpy(), patches.get(labels[0], []))
    return ClipView(clip=clip, kind=kind, names=names, texts=texts, maps=maps.numpy(), said=said)


def _shown(logits: NDArray[np.float32], truth: Sequence[int]) -> list[int]:
    best = [int(label) for label in np.argsort(-logits)[: 1 if truth else 3]]
    return list(dict.fromkeys([*best, *truth]))[:MOST_CLASSES]


def _because(opened: Opened, label: int, values: Maps, patches: Sequence[Patch]) -> str:
    """The sentence: this class because of these patches, which look like those train patches."""
    F, T = values.shape
    if values.max() <= 0:
        return ""
    row, column = (int(place) for place in np.unravel_index(values.argmax(), (F, T)))
    low, high = band_of(row, F)
    band = f", {low / 1000:.1f} to {high / 1000:.1f} kHz" if F > 1 else ""
    step = opened.column_seconds
    like = ", ".join(f"{escape(patch.clip)} at {patch.column * step:.1f} s" for patch in patches[:2])
    tail = f", as do patches of train clips: {like}" if like else ""
    return (
        f"{escape(opened.classes[label])} because its strongest patch, at {column * step:.1f} s{band}, looks "
        f"like its prototypes{tail}."
    )
