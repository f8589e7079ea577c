"""Manifests from CSV files and from folders of class folders, and back to CSV."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from featcache.cache.format.durable import replace_file
from featcache.errors import InputError, MissingError
from featcache.manifest.clip import SPLIT_NAMES, Clip, Manifest, seconds_text
from featcache.manifest.files import FOLDER, file_problem, printable
from featcache.manifest.folders import from_folders
from featcache.manifest.table import read_table
from featcache.manifest.variant import read_variant

REQUIRED = ("path", "labels")
OPTIONAL = ("id", "start", "end", "split", "fold", "group", "variant")


def load_manifest(
    path: str | Path, *, path_column: str | None = None, label_column: str | None = None
) -> Manifest:
    """A CSV file or, where ``path`` is a directory, its class folders.

    Args:
        path_column: as for ``read_manifest``
        label_column: as for ``read_manifest``

    Raises:
        InputError: as ``read_manifest`` and ``from_folders``.
    """
    if not Path(path).is_dir():
        return read_manifest(path, path_column=path_column, label_column=label_column)
    if path_column or label_column:
        raise InputError(
            f"{path} is a folder; path_column and label_column are for CSV files: leave them out",
            options=("path_column", "label_column"),
        )
    return from_folders(path)


def read_manifest(
    path: str | Path,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
) -> Manifest:
    """Read a CSV with the header ``path,labels`` and optional ``id,start,end,split,fold,group``.

    Labels are separated by ``;``, times are in seconds, paths are absolute or relative to the
    CSV. Without ``id`` a clip is named by its path as written, with its segment where it has one.
    ``filename`` or ``file`` is taken for ``path``, ``label``, ``class`` or ``category`` for ``labels``
    where those are missing; semicolons or tabs may stand between cells. ``notes`` of the manifest say so.

    Args:
        path_column: the column to take for ``path``
        label_column: the column to take for ``labels``
        group_column: the column to take for ``group``

    Raises:
        MissingError: there is no such file.
        InputError: a column, cell, row, value or id is wrong; the message names the line.
    """
    path = Path(path)
    if file_problem(path) == "no such file":
        raise MissingError(f"no manifest at {path}; wanted a CSV file with the header path,labels")
    if file_problem(path) == FOLDER:
        raise InputError(
            f"{path} is a folder, not a CSV file; read a folder of class folders with from_folders",
            options=("from_folders",),
        )
    named = {"path": path_column, "labels": label_column, "group": group_column}
    given = {name: column for name, column in named.items() if column}
    required = (*REQUIRED, "group") if group_column else REQUIRED
    rows, notes = read_table(path, required, [name for name in OPTIONAL if name not in required], given)
    splits: dict[str, str] = {}
    clips = tuple(_clip(path, line, row, splits) for line, row in rows)
    notes += [f"split {own!r} is taken for {split}" for own, split in splits.items()]
    return _checked(Manifest(clips, path, notes=tuple(notes), own_columns=bool(given)))


def write_manifest(path: str | Path, clips: Sequence[Clip]) -> None:
    """Write clips as a CSV that ``read_manifest`` reads back to the same clips (paths absolute).

    A path with a line break, or that is not UTF-8, is written as ``printable`` spells it.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    varied = any(clip.variant for clip in clips)
    rows.writerow([*REQUIRED, *OPTIONAL] if varied else [*REQUIRED, *OPTIONAL[:-1]])
    for clip in clips:
        end = "" if clip.end is None else repr(clip.end)
        times = [repr(clip.start), end]
        labels = ";".join(clip.labels)
        parts = [clip.split or "", clip.fold or "", clip.group or ""]
        parts += [clip.variant.text() if clip.variant else ""] if varied else []
        rows.writerow(map(printable, [str(clip.path.absolute()), labels, clip.id, *times, *parts]))
    replace_file(Path(path), text.getvalue().encode())


def _clip(source: Path, line: int, row: dict[str, str], splits: dict[str, str]) -> Clip:
    """One row's clip; names of splits that stand for another are added to ``splits``."""
    where = f"{source} line {line}"
    cells = {name: row.get(name, "") for name in (*REQUIRED, *OPTIONAL)}
    if not cells["path"]:
        raise InputError(f"{where} has no path")
    start, end = seconds(where, "start", cells["start"]) or 0.0, seconds(where, "end", cells["end"])
    if end is not None and end <= start:
        raise InputError(f"{where}: end {seconds_text(end)} s is not after start {seconds_text(start)} s")
    split = SPLIT_NAMES.get(cells["split"].casefold())
    if cells["split"] and split is None:
        raise InputError(
            f"{where}: unknown split {cells['split']!r}; wanted train, valid or test (or nothing)"
        )
    if split and split != cells["split"]:
        splits[cells["split"]] = split
    stop = "" if end is None else seconds_text(end)
    segment = f"@{seconds_text(start)}-{stop}" if cells["start"] or cells["end"] else ""
    return Clip(
        id=cells["id"] or cells["path"] + segment,
        path=source.parent / cells["path"],
        start=start,
        end=end,
        labels=tuple(dict.fromkeys(part.strip() for part in cells["labels"].split(";") if part.strip())),
        split=split,
        fold=cells["fold"] or None,
        group=cells["group"] or None,
        variant=read_variant(where, cells["variant"]) if cells["variant"] else None,
    )


def seconds(where: str, name: str, text: str) -> float | None:
    """A time [s] in a cell; None of an empty one."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: {name} is {text!r}; wanted seconds, 0 or more")
    return value


def _checked(manifest: Manifest) -> Manifest:
    if not manifest.clips:
        raise InputError(f"{manifest.path} lists no clip; wanted at least one row below the header")
    manifest.require_own_ids()
    return manifest
