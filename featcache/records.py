"""What a cache remembers of the runs that filled it: runs.jsonl and failed.jsonl beside the arrays.

Neither is part of the tokens' identity: labels and paths may change, the tokens stay what they are.
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crc32c import crc32c

from featcache.errors import CacheError, InputError
from featcache.files import DOCUMENT_BYTES, read_bytes, reason
from featcache.jsonl import Line, append_lines, encode, read_lines
from featcache.manifest.files import printable

RUNS = "runs.jsonl"
FAILED = "failed.jsonl"
WINDOWS = "windows.csv"  # the manifest of windows, where an extraction split clips
_TABLES = (".csv", ".tsv")
CLIPS = "clips.csv"  # the manifest with plain columns, where the one given named its own
OWN = (WINDOWS, CLIPS)  # manifests that lie in the cache itself


def _is_run(record: Mapping[str, Any] | None) -> bool:
    return record is not None and isinstance(record.get("manifest", ""), str)


def _is_failure(record: Mapping[str, Any] | None) -> bool:
    return record is not None and all(isinstance(record.get(name), str) for name in ("id", "reason"))


# File -> whether a line of it is what we write there.
RECORDS: dict[str, Callable[[Mapping[str, Any] | None], bool]] = {RUNS: _is_run, FAILED: _is_failure}


def add_run(cache: Path, run: Mapping[str, Any]) -> None:
    """Append one extraction: its manifest, device, versions and settings.

    Of a manifest that lies in the cache the checksum is kept: it holds labels, and nobody else has them.
    """
    own = [name for name in OWN if str((cache / name).absolute()) == run.get("manifest")]
    checksum = {"manifest_crc32c": _checksum(cache / own[0])} if own else {}
    append_lines(cache / RUNS, [{**run, **checksum}])


def last_manifest(cache: Path) -> Path | None:
    """The manifest that this cache was last extracted from; None if it was not recorded.

    A cache may come from anyone, and the name it remembers is only followed to what a manifest can be.

    Raises:
        CacheError: runs.jsonl cannot be read, or its last line cannot.
        InputError: it names something that is neither a CSV file of at most 64 MB nor a folder, or a
            manifest in the cache that is not as extraction wrote it.
    """
    run = _last_run(cache / RUNS)
    if run is None:
        return None
    path = Path(run["manifest"])
    if "manifest_crc32c" in run:
        path = cache / path.name  # wherever the cache is by now
        if (problem := _changed(path, run["manifest_crc32c"])) is not None:
            raise InputError(
                f"{path}, the manifest last extracted from, {problem}; run the extract command again, or "
                "name a manifest (this one, to take it as it is)",
                options=("manifests",),
            )
        return path
    why = _no_manifest(path)
    if why:
        raise InputError(
            f"{cache / RUNS} names {str(path)!r} as the manifest, which {why}; name a manifest",
            options=("manifests",),
        )
    return path


def last_dataset(cache: Path) -> str:
    """The name of the data set whose manifest lies in the cache; empty where the manifest's file names it."""
    run = _last_run(cache / RUNS) or {}
    name = run.get("dataset") if "manifest_crc32c" in run else ""
    return printable(name) if isinstance(name, str) else ""


def _last_run(path: Path) -> dict[str, Any] | None:
    """The last line; an earlier one is not taken in its place, for it may name other labels."""
    lines = _lines(path)
    if not lines:
        return None
    last = lines[-1]
    if last.record is None or not _is_run(last.record):
        raise CacheError(
            f"{path} line {last.number}, the last extraction, cannot be read; name a manifest, or run the "
            "extract command again"
        )
    return last.record if last.record.get("manifest") else None


def own_manifest_problem(cache: Path) -> tuple[str, str] | None:
    """The manifest in a cache that labels its clips, and why it is not as extraction wrote it."""
    run = _last_run(cache / RUNS) or {}
    name = Path(run.get("manifest", "")).name
    problem = _changed(cache / name, run["manifest_crc32c"]) if "manifest_crc32c" in run else None
    return None if problem is None else (name, problem)


def _changed(path: Path, checksum: object) -> str | None:
    try:
        return None if _checksum(path) == checksum else "is not as extraction wrote it"
    except OSError as error:
        return f"cannot be read ({reason(error)})"


def _checksum(path: Path) -> str:
    return f"{crc32c(read_bytes(path)):08x}"


def failed_clips(cache: Path) -> dict[str, str]:
    """Clip id -> why it has no tokens, for clips that could not be decoded when last tried.

    Raises:
        CacheError: failed.jsonl cannot be read.
    """
    return {entry["id"]: entry["reason"] for entry in _sound(cache / FAILED)}


def record_failed(cache: Path, tried: set[str], failed: Mapping[str, str]) -> None:
    """Replace what is recorded of the clips ``tried`` in this run; other clips' entries stay."""
    from featcache.cache.format.durable import replace_file, writing

    kept = {id_: reason for id_, reason in failed_clips(cache).items() if id_ not in tried}
    lines = [encode({"id": id_, "reason": reason}) for id_, reason in {**kept, **failed}.items()]
    with writing(cache):
        if lines:
            replace_file(cache / FAILED, "".join(lines).encode())
        else:
            (cache / FAILED).unlink(missing_ok=True)


def _sound(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that are what we write there; others are passed over."""
    found = [line.record for line in _lines(path) if RECORDS[path.name](line.record)]
    return [record for record in found if record is not None]


def _lines(path: Path) -> list[Line]:
    try:
        return list(read_lines(path))
    except OSError as error:
        raise CacheError(
            f"{path} cannot be read: {reason(error)}; remove it, or copy the cache again"
        ) from error


def _no_manifest(path: Path) -> str | None:
    """Why a path cannot be a manifest; None where it can, or where nothing is there."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None if path.suffix in _TABLES else "does not exist"  # reading a CSV file says so, too
    except (OSError, ValueError) as error:
        return f"cannot be read ({reason(error) if isinstance(error, OSError) else error})"
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode) or path.suffix not in _TABLES:
        return "is not a CSV file"
    return "has more than 64 MB" if status.st_size > DOCUMENT_BYTES else None
