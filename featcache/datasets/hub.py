"""Data sets as the Hugging Face Hub has them: shards of parquet with the audio inside."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.datasets.listing import Listing
from featcache.datasets.root import Root
from featcache.errors import InputError
from featcache.manifest import Clip
from featcache.manifest.clip import SPLIT_NAMES
from featcache.parquet import SUFFIX, audio_column, column_names, read_rows

# What a column of labels may be called where no card that we could read says it.
LABEL_COLUMNS = (
    "labels", "label", "human_labels", "event_labels", "event_label", "classes", "class", "category",
)  # fmt: skip
SHARD = re.compile(r"(?P<name>.+?)-(?P<number>\d+)-of-(?P<count>\d+)")

Cells = Mapping[str, Any]


def labels_in(column: str) -> Callable[[Cells], tuple[str, ...] | None]:
    """A clip's labels are those of a column: one, a list of them, or several with commas between."""

    def read(row: Cells) -> tuple[str, ...]:
        value = row[column]
        parts = value.split(",") if isinstance(value, str) else [] if value is None else value
        return tuple(str(part).strip() for part in (parts if isinstance(parts, list) else [parts]))

    return read


@dataclass(frozen=True, kw_only=True)
class HubTable:
    """Which columns of the shards say what.

    Args:
        columns: those that are read; the first of ``LABEL_COLUMNS`` that is there if empty
        labels: a row's labels; None leaves the row out
        id: the column of ids; the place of a row if empty
        fold, group: their columns
        splits: shards of these names and their splits, beside ``train``, ``validation`` and the like
    """

    columns: Sequence[str] = ()
    labels: Callable[[Cells], tuple[str, ...] | None] | None = None
    id: str | None = None
    fold: str | None = None
    group: str | None = None
    splits: Mapping[str, str] | None = None


def shards_below(root: Path) -> list[Path]:
    """The parquet files below a folder that hold audio."""
    return [path for path in sorted(root.rglob(f"*{SUFFIX}")) if audio_column(path)]


def read_shards(root: Root, shards: Sequence[Path], table: HubTable) -> Listing:
    """A clip for each row; classes are those that occur, in the order of the alphabet.

    Raises:
        InputError: a column is not there; the message lists those that are.
    """
    listing = Listing(clips=[], classes=())
    for shard in shards:
        split = _split(shard, table.splits or {})
        if split is not None and not root.wants(split):
            continue
        columns, labels = _columns(shard, table)
        for number, row in enumerate(read_rows(shard, columns)):
            own = labels(row)
            if own is not None:
                listing.clips.append(_clip(shard, number, row, own, table, split))
    listing.classes = tuple(sorted({label for clip in listing.clips for label in clip.labels}))
    listing.problems += _missing_shards(shards)
    return listing


def _columns(shard: Path, table: HubTable) -> tuple[Sequence[str], Callable[[Cells], tuple[str, ...] | None]]:
    if table.labels:
        own = [name for name in (table.id, table.fold, table.group) if name]
        return [*table.columns, *own], table.labels
    there = column_names(shard)
    column = next((name for name in LABEL_COLUMNS if name in there), None)
    if column is None:
        known, found = ", ".join(LABEL_COLUMNS), ", ".join(there)
        raise InputError(f"{shard} has no column of labels that is known ({known}); found {found}")
    return [column], labels_in(column)


def _clip(
    shard: Path, number: int, row: Cells, labels: tuple[str, ...], table: HubTable, split: str | None
) -> Clip:
    return Clip(
        id=str(row[table.id]) if table.id else f"{shard.stem}/{number}",
        path=shard / str(number),
        labels=tuple(dict.fromkeys(labels)),
        split=split,
        fold=str(row[table.fold]) if table.fold else None,
        group=str(row[table.group]) if table.group else None,
    )


def _split(shard: Path, own: Mapping[str, str]) -> str | None:
    """The split that a shard's name says, or else its folder's."""
    named = SHARD.fullmatch(shard.stem)
    for name in (named["name"] if named else shard.stem, shard.parent.name):
        if found := {**SPLIT_NAMES, **own}.get(name.casefold()):
            return found
    return None


def _missing_shards(shards: Sequence[Path]) -> list[str]:
    """Shards say how many there are: ``train-00000-of-00002``."""
    found: dict[tuple[Path, str, int], int] = {}
    for shard in shards:
        if named := SHARD.fullmatch(shard.stem):
            key = (shard.parent, named["name"], int(named["count"]))
            found[key] = found.get(key, 0) + 1
    return [
        f"{there} of {count} shards of {folder / name} are there"
        for (folder, name, count), there in found.items()
        if there < count
    ]
