"""What a cache remembers of the runs that filled it: runs.jsonl and failed.jsonl beside the arrays.

Neither is part of the tokens' identity: labels and paths may change, the tokens stay what they are.
"""

import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from featcache.errors import CacheError, InputError
from featcache.files import DOCUMENT_BYTES, reason
from featcache.jsonl import append_lines, encode, records

RUNS = "runs.jsonl"
FAILED = "failed.jsonl"
WINDOWS = "windows.csv"  # the manifest of windows, where an extraction split clips
_TABLES = (".csv", ".tsv")
CLIPS = "clips.csv"  # the manifest with plain columns, where the one given named its own


def _is_run(record: Mapping[str, Any] | None) -> bool:
    return record is not None and isinstance(record.get("manifest", ""), str)


def _is_failure(record: Mapping[str, Any] | None) -> bool:
    return record is not None and all(isinstance(record.get(name), str) for name in ("id", "reason"))


# File -> whether a line of it is what we write there.
RECORDS: dict[str, Callable[[Mapping[str, Any] | None], bool]] = {RUNS: _is_run, FAILED: _is_failure}


def add_run(cache: Path, run: Mapping[str, Any]) -> None:
    """Append one extraction: its manifest, device, versions and settings."""
    append_lines(cache / RUNS, [run])


def last_manifest(cache: Path) -> Path | None:
    """The manifest that this cache was last extracted from; None if it was not recorded.

    A cache may come from anyone, and the name it remembers is only followed to what a manifest can be.

    Raises:
        CacheError: runs.jsonl cannot be read.
        InputError: it names something that is neither a CSV file of at most 64 MB nor a folder.
    """
    runs = [run for run in _sound(cache / RUNS) if run.get("manifest")]
    if not runs:
        return None
    path = Path(runs[-1]["manifest"])
    why = _no_manifest(path)
    if why:
        raise InputError(
            f"{cache / RUNS} names {str(path)!r} as the manifest, which {why}; name a manifest",
            options=("manifests",),
        )
    return path


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
    try:
        return [record for record in records(path) if RECORDS[path.name](record)]
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
