"""The clips of an experiment: which audio, which labels, which split. The cache knows none of it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from featcache.errors import InputError
from featcache.manifest.files import file_problem
from featcache.manifest.variant import Variant

SPLITS = ("train", "valid", "test")
# What else data sets call them.
SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("val", "validation", "dev"), "valid"),
    "training": "train",
    **dict.fromkeys(("testing", "eval"), "test"),
}


def seconds_text(seconds: float) -> str:
    """A time to the microsecond, as ids and messages say it: two times that differ never read the same.

    >>> seconds_text(10.0), seconds_text(2.50), seconds_text(100000.25)
    ('10', '2.5', '100000.25')
    """
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One row of a manifest."""

    id: str
    path: Path
    start: float = 0.0  # [s] in the file
    end: float | None = None  # [s] in the file; None is its end
    labels: tuple[str, ...] = ()
    split: str | None = None
    fold: str | None = None
    group: str | None = None  # the recording or site; a split that is drawn keeps it whole
    variant: Variant | None = None  # where it is an augmented one: what it is made of


@dataclass(frozen=True)
class Manifest:
    """The clips in file order, and where they came from."""

    clips: tuple[Clip, ...]
    path: Path
    notes: tuple[str, ...] = field(default=(), compare=False)  # what was taken under another name
    own_columns: bool = field(default=False, compare=False)  # its file needs column names to be read again
    name: str = field(default="", compare=False)  # of the data set, where it is not that of the file

    @property
    def title(self) -> str:
        """What results name the data set by: its own name, or that of the manifest's file."""
        return self.name or self.path.stem or "manifest"

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Every label, sorted."""
        return tuple(sorted({label for clip in self.clips for label in clip.labels}))

    @cached_property
    def digest(self) -> str:
        """32 hex digits over ids, segments, labels, splits, folds and groups, not over where audio lies."""
        state = hashlib.blake2b(digest_size=16)
        for clip in self.clips:
            row = [clip.id, clip.start, clip.end, sorted(clip.labels), clip.split, clip.fold]
            row += [] if clip.group is None else [clip.group]  # without the column: as ever
            row += [] if clip.variant is None else [clip.variant.text()]
            state.update(json.dumps(row).encode() + b"\n")
        return state.hexdigest()

    def require_own_ids(self) -> None:
        """Raise InputError if two clips share an id: tokens are found by it."""
        name, times = Counter(clip.id for clip in self.clips).most_common(1)[0] if self.clips else ("", 1)
        if times > 1:
            raise InputError(f"{self.path} has the id {name!r} {times} times; give each row an id of its own")

    def missing_files(self) -> list[Clip]:
        """Clips whose file does not exist or cannot be opened, in order."""
        problems = {path: file_problem(path) for path in {clip.path for clip in self.clips}}
        return [clip for clip in self.clips if problems[clip.path]]
