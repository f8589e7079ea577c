"""Label algebra: other names for labels, some of them only, none that are too rare."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from featcache.errors import InputError, unknown
from featcache.manifest.clip import Clip
from featcache.manifest.events import Event
from featcache.manifest.table import read_table


def read_map(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Label -> the labels in its place, from a CSV file with the columns ``label,to``.

    Several are written with ``;`` between. An empty ``to`` takes the label away.

    Raises:
        InputError: a column is missing, or a label stands in two rows.
    """
    table: dict[str, tuple[str, ...]] = {}
    for line, row in read_table(Path(path), ("label", "to"))[0]:
        if row["label"] in table:
            raise InputError(
                f"{path} line {line}: {row['label']!r} stands in an earlier line, too; leave one"
            )
        table[row["label"]] = tuple(part.strip() for part in row["to"].split(";") if part.strip())
    return table


def select(
    clips: Iterable[Clip],
    events: Iterable[Event] = (),
    *,
    rename: Mapping[str, tuple[str, ...]] | None = None,
    keep: Collection[str] = (),
    drop: Collection[str] = (),
    min_count: int = 1,
) -> tuple[list[Clip], list[Event]]:
    """Rename labels, keep or drop some, then drop those of fewer than ``min_count`` clips.

    A clip that loses its last label is left out; one that never had any stays, as a negative. Events
    follow the labels of their clips.

    Raises:
        InputError: a label that is named does not occur, or nothing is left.

    >>> clip = Clip(id="a", path=Path("a.wav"), labels=("car_idling", "rain"))
    >>> select([clip], rename={"car_idling": ("car",)}, drop=["rain"])[0][0].labels
    ('car',)
    """
    clips, events = list(clips), list(events)
    rename = rename or {}
    _known(rename, clips)
    clips = [replace(clip, labels=_renamed(clip.labels, rename)) for clip in had(clips, rename)]
    events = [replace(event, label=to) for event in events for to in rename.get(event.label, (event.label,))]
    _known([*keep, *drop], clips)
    counts = Counter(label for clip in clips for label in clip.labels)
    kept = {label for label in counts if (not keep or label in keep) and label not in drop}
    kept = {label for label in kept if counts[label] >= min_count}
    if not kept:
        raise InputError(
            "no label is left; keep more, drop fewer, or take a lower min_count", options=("min_count",)
        )
    left = [
        replace(clip, labels=tuple(label for label in clip.labels if label in kept))
        for clip in clips
        if not clip.labels or kept.intersection(clip.labels)
    ]
    ids = {clip.id for clip in left}
    return left, [event for event in events if event.label in kept and event.id in ids]


def had(clips: Iterable[Clip], rename: Mapping[str, tuple[str, ...]]) -> list[Clip]:
    """Clips that have a label after it, or had none before."""
    return [clip for clip in clips if not clip.labels or _renamed(clip.labels, rename)]


def _renamed(labels: Iterable[str], rename: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(to for label in labels for to in rename.get(label, (label,))))


def _known(names: Iterable[str], clips: Iterable[Clip]) -> None:
    there = {label for clip in clips for label in clip.labels}
    for name in names:
        if name not in there:
            raise unknown("label", name, sorted(there))
