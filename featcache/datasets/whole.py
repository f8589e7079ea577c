"""Whether a data set is whole: its labels, files and audio; and its events within its clips."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from featcache.audio.load import duration
from featcache.datasets.listing import Listing
from featcache.datasets.root import readable
from featcache.datasets.spec import DatasetSpec
from featcache.errors import AudioError, InputError
from featcache.manifest import Clip, Manifest
from featcache.manifest.events import Event
from featcache.manifest.files import printable

ALL = "all"  # where no split was published


def count_files(clips: Sequence[Clip]) -> dict[str, int]:
    """Files of each split, and of all together: what published sizes count."""
    paths: dict[str, set[Path]] = {ALL: set()}
    for clip in clips:
        paths[ALL].add(clip.path)
        if clip.split:
            paths.setdefault(clip.split, set()).add(clip.path)
    return {split: len(own) for split, own in paths.items()}


def check_labels(spec: DatasetSpec, listing: Listing, clips: Sequence[Clip]) -> None:
    """Raise InputError for a label that is none of the classes."""
    known = set(listing.classes)
    for clip in clips:
        for label in clip.labels:
            if label not in known or ";" in label:
                raise InputError(
                    f"{spec.title}: clip {clip.id!r} has the label {label!r}, which is none of its "
                    f"{len(known)} classes ({', '.join(listing.classes[:5])} …); is this another version "
                    "of it?"
                )


def too_few(spec: DatasetSpec, clips: Sequence[Clip], splits: Collection[str]) -> list[str]:
    """What is to be said of splits of which fewer files are listed than were published."""
    found = count_files(clips)
    wanted = {s: n for s, n in spec.sizes.items() if s == ALL or not splits or s in splits}
    if splits and ALL in wanted:
        return []  # nothing was published of a split of it
    return [
        f"{number:,} files{'' if split == ALL else f' of {split}'} were published, {found.get(split, 0):,} "
        "are listed"
        for split, number in wanted.items()
        if found.get(split, 0) < number
    ]


def split_missing(clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """The clips whose audio is there, and what is to be said of the others."""
    absent = {clip.path for clip in Manifest(tuple(clips), Path()).missing_files()}
    foreign = {clip.path for clip in clips if clip.path not in absent and not readable(clip.path)}
    said = []
    if foreign:
        first = min(foreign)
        said.append(
            f"{len(foreign):,} files are {'/'.join(sorted({path.suffix for path in foreign}))}, which "
            f"libsndfile cannot read, first {printable(first)}: convert them, as with 'ffmpeg -i "
            f"{first.name} {first.stem}.flac'"
        )
    gone = [clip for clip in clips if clip.path in absent]
    if gone:
        said.append(f"{len(gone):,} of {len(clips):,} clips have no file, first {printable(gone[0].path)}")
    return [clip for clip in clips if clip.path not in absent | foreign], said


def within(clips: Sequence[Clip], events: Sequence[Event]) -> tuple[list[Event], list[str]]:
    """Events cut at the end of their clip; one that begins behind it is left out, and said."""
    with_events = {event.id for event in events}
    lengths = {clip.id: _length(clip) for clip in clips if clip.id in with_events}
    kept = [
        replace(event, end=min(event.end, lengths[event.id])) if lengths[event.id] else event
        for event in events
        if not lengths[event.id] or event.start < lengths[event.id]
    ]
    gone = len(events) - len(kept)
    return kept, [f"{gone} events begin behind the end of their clip and are left out"] if gone else []


def _length(clip: Clip) -> float:
    """[s] of a clip; zero where its file cannot be read, which decoding will say."""
    try:
        return (clip.end or duration(clip.path)) - clip.start
    except AudioError:
        return 0.0


def shares(clips: Sequence[Clip]) -> str:
    """Files of each split, in words."""
    counts = count_files(clips)
    named = [f"{number} {split}" for split, number in counts.items() if split != ALL]
    return ", ".join(named) or f"{counts[ALL]} files without a split"
