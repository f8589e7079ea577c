"""A data set's folder as a manifest: what is listed, held against what is there and what was published."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featcache.audio.load import duration
from featcache.datasets.hub import read_shards, shards_below
from featcache.datasets.listing import Listing
from featcache.datasets.root import Root, readable
from featcache.datasets.spec import DatasetSpec
from featcache.datasets.table import DATASETS, dataset_spec
from featcache.errors import AudioError, InputError, MissingError
from featcache.manifest import Clip, Manifest
from featcache.manifest.events import Event, events_file, write_events
from featcache.manifest.files import FOLDER, file_problem, printable

ALL = "all"  # where no split was published


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set that can be extracted from."""

    spec: DatasetSpec
    manifest: Manifest
    events: tuple[Event, ...]
    classes: tuple[str, ...]  # in the data set's own order, also those without a clip
    problems: tuple[str, ...]  # what is not whole; empty unless that was allowed

    def write_events(self, manifest: Path) -> None:
        """Write the events beside a manifest, where the data have them."""
        if self.events:
            write_events(events_file(manifest), self.events)


def prepare(
    name: str, root: str | Path, *, splits: Collection[str] = (), allow_missing: bool = False
) -> Prepared:
    """Read a data set from the folder in which it was unpacked.

    Args:
        splits: those that are wanted; all of them if empty
        allow_missing: go on with the clips that are there; what is missing stands in ``problems``

    Raises:
        MissingError: the files of this data set are not there; the message says which were looked for.
        InputError: they are not what they should be, or something is missing and that is not allowed.
    """
    spec, root = dataset_spec(name), Path(root)
    if str(root).startswith("hf:"):
        raise InputError(
            f"{spec.title} is read from a folder, not from {root}; download it first "
            "(huggingface_hub.snapshot_download, or its command 'hf download')"
        )
    if file_problem(root) != FOLDER:
        raise MissingError(
            f"no folder at {printable(root)}; wanted the one that {spec.title} was unpacked in"
        )
    looked = Root(root, spec.title, splits)
    shards = shards_below(root) if spec.hub else []
    listing = read_shards(looked, shards, spec.hub) if shards and spec.hub else spec.read(looked)
    clips = [clip for clip in listing.clips if not splits or clip.split in splits]
    if not clips:
        wanted = f" in {' or '.join(splits)}" if splits else ""
        raise InputError(f"{spec.title} at {root} lists no clip{wanted}; it has {_shares(listing.clips)}")
    Manifest(tuple(clips), root).require_own_ids()
    _check_labels(spec, listing, clips)
    there, missing = _split_missing(clips)
    problems = [*listing.problems, *_too_few(spec, clips, splits), *missing]
    if problems and not allow_missing:
        raise InputError(
            f"{spec.title} at {root} is not whole: {'; '.join(problems)}; get what is missing, or go on with "
            "what is there with allow_missing",
            options=("allow_missing",),
        )
    if not there:
        raise InputError(f"{spec.title} at {root} has none of its audio: {'; '.join(problems)}")
    kept = {clip.id for clip in there}
    events, cut = _within(there, [event for event in listing.events if event.id in kept])
    notes = (*listing.notes, *cut)
    manifest = Manifest(tuple(there), root, notes=notes, own_columns=True)
    return Prepared(
        spec=spec, manifest=manifest, events=tuple(events), classes=listing.classes, problems=tuple(problems)
    )


def named_source(text: str) -> tuple[str, str] | None:
    """The data set and the folder in ``NAME:ROOT``; None where the text is that of a path.

    Raises:
        InputError: there is neither a file of this name nor such a data set.

    >>> named_source("esc50:data/ESC-50-master"), named_source("clips.csv")
    (('esc50', 'data/ESC-50-master'), None)
    """
    name, colon, root = text.partition(":")
    if name in DATASETS and not colon and not Path(text).exists():
        raise InputError(
            f"no folder is named for {DATASETS[name].title}; give the one in which it was unpacked, "
            f"as {name}:FOLDER"
        )
    if not colon or Path(text).exists() or "/" in name:
        return None
    return dataset_spec(name).name, root


def count_files(clips: Sequence[Clip]) -> dict[str, int]:
    """Files of each split, and of all together: what published sizes count."""
    paths: dict[str, set[Path]] = {ALL: set()}
    for clip in clips:
        paths[ALL].add(clip.path)
        if clip.split:
            paths.setdefault(clip.split, set()).add(clip.path)
    return {split: len(own) for split, own in paths.items()}


def _check_labels(spec: DatasetSpec, listing: Listing, clips: Sequence[Clip]) -> None:
    known = set(listing.classes)
    for clip in clips:
        for label in clip.labels:
            if label not in known or ";" in label:
                raise InputError(
                    f"{spec.title}: clip {clip.id!r} has the label {label!r}, which is none of its "
                    f"{len(known)} classes ({', '.join(listing.classes[:5])} …); is this another version "
                    "of it?"
                )


def _too_few(spec: DatasetSpec, clips: Sequence[Clip], splits: Collection[str]) -> list[str]:
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


def _split_missing(clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
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


def _within(clips: Sequence[Clip], events: Sequence[Event]) -> tuple[list[Event], list[str]]:
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


def _shares(clips: Sequence[Clip]) -> str:
    counts = count_files(clips)
    named = [f"{number} {split}" for split, number in counts.items() if split != ALL]
    return ", ".join(named) or f"{counts[ALL]} files without a split"
