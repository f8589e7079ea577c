"""Opening a cache for writing: what is there, is it the same kind, and what did a crash leave."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.cache.format.durable import remove_partials
from featcache.cache.format.fingerprint import as_json, check_same_tokens
from featcache.cache.format.layout import CLIP_KEY, CacheLayout
from featcache.cache.format.ledger import LEDGER, Finished, drop_torn_line
from featcache.cache.format.metadata import read_attributes
from featcache.cache.read.columns import read_column
from featcache.cache.write.folders import check_folders
from featcache.cache.write.lock import LOCK
from featcache.errors import CacheError, InputError


def open_layout(path: Path, wanted: CacheLayout) -> tuple[CacheLayout, dict[str, Any]]:
    """The layout and attributes of the cache at ``path``, which may be about to be created.

    Raises:
        MismatchError: the cache there differs from ``wanted`` in a field that matters.
        CacheError: the directory holds something else, or shards without their ledger.
    """
    if not (path / "zarr.json").exists():
        wanted = replace(wanted, fingerprint=as_json(wanted.fingerprint), shard_clips=wanted.shard_rows)
        return wanted, wanted.attributes()
    attributes = read_attributes(path)
    stored = CacheLayout.from_attributes(attributes, path)
    # An unspecified shard size is whatever the cache was created with.
    wanted = replace(wanted, shard_clips=wanted.shard_clips or stored.shard_clips)
    check_same_tokens(path, stored, wanted, also=("codec", "shard_clips"))
    return stored, attributes


def recover(path: Path, layout: CacheLayout) -> Finished:
    """Clear away what a killed writer left and return the finished shards."""
    check_folders(path, layout)
    (path / "ids").mkdir(exist_ok=True)
    for directory in (".", "ids", *(spec.name for spec in layout.arrays())):
        remove_partials(path / directory)
    if not (path / LEDGER).exists() and any((path / CLIP_KEY.name).glob("c.*")):
        raise CacheError(f"{path} has shards but no {LEDGER}; copy the cache again, or remove the directory")
    drop_torn_line(path)
    return Finished(path, layout.shard_rows)


def finished_keys(path: Path, finished: Finished) -> set[bytes]:
    """The clip keys of the finished shards."""
    return {key.tobytes() for key in read_column(path, CLIP_KEY, finished)}


def shard_row_count(counts: Mapping[int, int], shard_rows: int) -> int:
    """Rows of every array: up to the last clip of the highest shard."""
    return max(counts) * shard_rows + counts[max(counts)] if counts else 0


def check_target(path: Path) -> None:
    """Refuse a path that holds something else, before anything is written there.

    A killed first run may leave a lock, a ledger and empty arrays, but nothing of another kind.

    Raises:
        InputError: a file, or a folder that is not empty and not a token cache.
        CacheError: a ledger without its cache.
    """
    if (path / "zarr.json").exists() or not path.exists():
        return
    if not path.is_dir():
        raise InputError(f"{path} is a file, not a token cache; choose another path")
    if (path / LEDGER).exists() and (path / LEDGER).stat().st_size:
        raise CacheError(
            f"{path} has a ledger but no zarr.json; copy the cache again, or remove the directory"
        )
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in _OURS)
    if foreign:
        raise InputError(
            f"{path} is not a token cache and not empty (it holds {foreign[0]!r}); choose another path"
        )


_OURS = {LOCK, LEDGER, "zarr.json.partial", "ids", "tokens", "scale", "cls", "mean", "valid", "clip_key"}
