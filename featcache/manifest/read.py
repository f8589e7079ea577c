"""Manifests from CSV files and from folders of class folders, and back to CSV."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from featcache.errors import InputError, MissingError
from featcache.manifest.clip import SPLITS, Clip, Manifest, seconds_text
from featcache.manifest.files import printable
from featcache.manifest.folders import from_folders

REQUIRED = ("path", "labels")
OPTIONAL = ("id", "start", "end", "split", "fold")


def load_manifest(path: str | Path) -> Manifest:
    """A CSV file or, where ``path`` is a directory, its class folders.

    Raises:
        InputError: as ``read_manifest`` and ``from_folders``.
    """
    return from_folders(path) if Path(path).is_dir() else read_manifest(path)


def read_manifest(path: str | Path) -> Manifest:
    """Read a CSV with the header ``path,labels`` and optional ``id,start,end,split,fold``.

    Labels are separated by ``;``, times are in seconds, paths are absolute or relative to the
    CSV. Without ``id`` a clip is named by its path as written, with its segment where it has one.

    Raises:
        MissingError: there is no such file.
        InputError: a column, value or id is wrong; the message names the line.
    """
    path = Path(path)
    if not path.exists():
        raise MissingError(f"no manifest at {path}; wanted a CSV file with the header path,labels")
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, not a CSV file; read a folder of class folders with from_folders",
            options=("from_folders",),
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            _check_header(path, rows.fieldnames or [])
            clips = tuple(_clip(path, rows.line_num, row) for row in rows)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error})") from None
    return _checked(Manifest(clips, path))


def write_manifest(path: str | Path, clips: Sequence[Clip]) -> None:
    """Write clips as a CSV that ``read_manifest`` reads back to the same clips (paths absolute).

    A path with a line break, or that is not UTF-8, is written as ``printable`` spells it.
    """
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*REQUIRED, *OPTIONAL])
        for clip in clips:
            end = "" if clip.end is None else repr(clip.end)
            times = [repr(clip.start), end]
            labels = ";".join(clip.labels)
            cells = [str(clip.path.absolute()), labels, clip.id, *times, clip.split or "", clip.fold or ""]
            rows.writerow(map(printable, cells))


def _check_header(path: Path, header: Sequence[str]) -> None:
    absent = [name for name in REQUIRED if name not in header]
    if absent:
        found = ",".join(header) or "an empty file"
        raise InputError(
            f"{path} has no column {' or '.join(map(repr, absent))}; wanted path,labels, found {found}"
        )


def _clip(source: Path, line: int, row: dict[str, str | None]) -> Clip:
    where = f"{source} line {line}"
    cells = {name: (row.get(name) or "").strip() for name in (*REQUIRED, *OPTIONAL)}
    if not cells["path"]:
        raise InputError(f"{where} has no path")
    start, end = _seconds(where, "start", cells["start"]) or 0.0, _seconds(where, "end", cells["end"])
    if end is not None and end <= start:
        raise InputError(f"{where}: end {seconds_text(end)} s is not after start {seconds_text(start)} s")
    if cells["split"] and cells["split"] not in SPLITS:
        raise InputError(
            f"{where}: unknown split {cells['split']!r}; wanted train, valid or test (or nothing)"
        )
    stop = "" if end is None else seconds_text(end)
    segment = f"@{seconds_text(start)}-{stop}" if cells["start"] or cells["end"] else ""
    return Clip(
        id=cells["id"] or cells["path"] + segment,
        path=source.parent / cells["path"],
        start=start,
        end=end,
        labels=tuple(dict.fromkeys(part.strip() for part in cells["labels"].split(";") if part.strip())),
        split=cells["split"] or None,
        fold=cells["fold"] or None,
    )


def _seconds(where: str, name: str, text: str) -> float | None:
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
