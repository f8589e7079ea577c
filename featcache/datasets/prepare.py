"""A data set's folder as a manifest: what is listed, held against what is there and what was published."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from featcache.datasets.hub import read_shards, shards_below
from featcache.datasets.remote import fetch, is_remote
from featcache.datasets.root import Root
from featcache.datasets.spec import DatasetSpec
from featcache.datasets.table import DATASETS, dataset_spec
from featcache.datasets.whole import check_labels, shares, split_missing, too_few, within
from featcache.errors import InputError, MissingError
from featcache.manifest import Manifest
from featcache.manifest.events import Event
from featcache.manifest.files import FOLDER, file_problem, printable


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set that can be extracted from."""

    spec: DatasetSpec
    manifest: Manifest
    events: tuple[Event, ...]
    classes: tuple[str, ...]  # in the data set's own order, also those without a clip
    problems: tuple[str, ...]  # what is not whole; empty unless that was allowed


def prepare(
    name: str, root: str | Path, *, splits: Collection[str] = (), allow_missing: bool = False
) -> Prepared:
    """Read a data set from the folder in which it was unpacked.

    Args:
        root: the folder, or ``hf://datasets/OWNER/NAME``
        splits: those that are wanted; all of them if empty
        allow_missing: go on with the clips that are there; what is missing stands in ``problems``

    Raises:
        MissingError: the files of this data set are not there; the message says which were looked for.
        InputError: they are not what they should be, or something is missing and that is not allowed.
    """
    spec = dataset_spec(name)
    root = fetch(root) if is_remote(root) else Path(root)
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
        raise InputError(f"{spec.title} at {root} lists no clip{wanted}; it has {shares(listing.clips)}")
    Manifest(tuple(clips), root).require_own_ids()
    check_labels(spec, listing, clips)
    there, missing = split_missing(clips)
    problems = [*listing.problems, *too_few(spec, clips, splits), *missing]
    if problems and not allow_missing:
        raise InputError(
            f"{spec.title} at {root} is not whole: {'; '.join(problems)}; get what is missing, or go on with "
            "what is there with allow_missing",
            options=("allow_missing",),
        )
    if not there:
        raise InputError(f"{spec.title} at {root} has none of its audio: {'; '.join(problems)}")
    kept = {clip.id for clip in there}
    events, cut = within(there, [event for event in listing.events if event.id in kept])
    notes = (*listing.notes, *cut)
    manifest = Manifest(tuple(there), root, notes=notes, own_columns=True, name=name)
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
