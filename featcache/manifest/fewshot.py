"""Few-shot training sets: so many clips of each class, drawn from a manifest's train clips."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from featcache.audio.load import duration
from featcache.errors import AudioError, InputError
from featcache.manifest.clip import Clip, Manifest

LENIENT = 20.0  # [s] of a recording that may be drawn from


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """What was drawn."""

    clips: tuple[Clip, ...]  # the shots in the manifest's order, and all clips of other splits
    short: Mapping[str, int]  # classes with fewer clips than wanted -> how many they have


def few_shot(manifest: Manifest, shots: int, *, seed: int, max_seconds: float = LENIENT) -> FewShot:
    """Draw ``shots`` train clips of each class, and keep the clips of other splits.

    Only clips of a single label are drawn, from recordings of at most ``max_seconds``. Of each recording one
    clip, drawn at random, is its first choice; classes whose first choices do not suffice take from the other
    clips. The same seed draws the same; what is drawn for fewer shots is part of what is drawn for more.

    Args:
        max_seconds: [s] of the file; infinity for any

    Raises:
        InputError: no clip is marked train, or none can be drawn.

    Source:
        util/prepare_data/fewshot.py of https://github.com/DBD-research-group/Bird-MAE, commit a514ef5, its
        condition "lenient", with ``fill_up`` off. There each number of shots is drawn anew, so those for 1
        are not among those for 5; here an order is drawn, and its beginning taken.
    """
    if shots < 1:
        raise InputError(f"shots is {shots}; wanted 1 or more", options=("shots",))
    train = [clip for clip in manifest if clip.split == "train" and clip.variant is None]
    if not train:
        raise InputError(
            f"{manifest.path} marks no clip as train; few shots are drawn from those: fill its column 'split'"
        )
    lengths: dict[Path, float] = {}
    recordings: dict[str, list[Clip]] = {}
    for clip in train:
        if len(clip.labels) == 1 and _seconds(clip.path, lengths) <= max_seconds:
            recordings.setdefault(clip.group or str(clip.path), []).append(clip)
    if not recordings:
        raise InputError(
            f"no train clip of {manifest.path} has a single label and a recording of at most "
            f"{max_seconds:g} s; allow longer ones with max_seconds",
            options=("max_seconds",),
        )
    order = _order(recordings.values(), random.Random(seed))
    drawn = {clip.id for own in order.values() for clip in own[:shots]}
    labels = sorted({label for clip in train for label in clip.labels})
    counts = {label: len(order.get(label, [])) for label in labels}
    kept = tuple(clip for clip in manifest if clip.split != "train" or clip.id in drawn)
    return FewShot(clips=kept, short={label: n for label, n in counts.items() if n < shots})


def _order(recordings: Iterable[list[Clip]], draw: random.Random) -> dict[str, list[Clip]]:
    """The clips of each class in the order in which they are taken: first choices, then the others."""
    first: dict[str, list[Clip]] = {}
    others: dict[str, list[Clip]] = {}
    for clips in recordings:
        choice = draw.choice(clips)
        first.setdefault(choice.labels[0], []).append(choice)
        for clip in clips:
            if clip is not choice:
                others.setdefault(clip.labels[0], []).append(clip)
    order = {}
    for label in sorted(first | others):
        own, more = first.get(label, []), others.get(label, [])
        order[label] = [*draw.sample(own, len(own)), *draw.sample(more, len(more))]
    return order


def _seconds(path: Path, lengths: dict[Path, float]) -> float:
    """[s] of a file; none is too long to be read, and what cannot be read is not drawn."""
    if path not in lengths:
        try:
            lengths[path] = duration(path)
        except AudioError:
            lengths[path] = float("inf")
    return lengths[path]
