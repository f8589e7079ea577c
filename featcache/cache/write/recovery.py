"""Opening a cache for writing: what is there, is it the same kind, and what did a crash leave."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from featcache.cache.format.durable import PARTIAL, is_left_over, partials
from featcache.cache.format.fingerprint import as_json, check_same_tokens
from featcache.cache.format.layout import CLIP_KEY, CacheLayout
from featcache.cache.format.ledger import LEDGER, OLD_LEDGER, Finished, fold, pieces
from featcache.cache.format.metadata import read_attributes
from featcache.cache.read.columns import read_column
from featcache.cache.write.commit import finish_all
from featcache.cache.write.folders import check_folders, folders
from featcache.cache.write.lock import LOCK
from featcache.cache.write.plan import PLAN
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
    # An unspecified shard size is whatever the cache was created with, and so is what format 1 lacks.
    wanted = replace(wanted, shard_clips=wanted.shard_clips or stored.shard_clips, channels=stored.channels)
    check_same_tokens(path, stored, wanted, also=("codec", "shard_clips"))
    return stored, attributes | stored.attributes()


def recover(path: Path, layout: CacheLayout, *, alone: bool) -> Finished:
    """Clear away what a killed writer left and return the finished shards.

    Args:
        alone: no other process writes to the cache, so that every temporary file is one that was left
    """
    check_folders(path, layout)
    for name in ("ids", LEDGER, PLAN):
        (path / name).mkdir(exist_ok=True)
    shards = [file for file in (path / CLIP_KEY.name).glob("c.*") if file.suffix != PARTIAL]
    if shards and not pieces(path) and not any((path / LEDGER).glob("*.commit")):
        raise CacheError(f"{path} has shards but no ledger; copy the cache again, or remove the directory")
    finished = Finished(path, layout.shard_rows)
    finish_all(path, layout, finished)
    remove_left_overs(path, layout, finished, alone=alone)
    if alone or len(pieces(path)) > _MANY:
        fold(path)
    return finished


def remove_left_overs(path: Path, layout: CacheLayout, finished: Finished, *, alone: bool) -> None:
    """Remove temporary files of writers that are gone, and those of finished shards."""
    done = {name for shard in finished.counts for name in layout.shard_files(shard)}
    for folder in (".", *folders(layout)):
        for partial, name in partials(path / folder):
            if alone or is_left_over(partial) or f"{folder}/{name}" in done:
                partial.unlink(missing_ok=True)


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
    has_ledger = bool(pieces(path))
    foreign = sorted(
        entry.name for entry in path.iterdir() if entry.name not in _OURS and not _is_partial(entry.name)
    )
    if (path / "zarr.json").exists():  # another writer has made it meanwhile, and what stands beside it
        return
    if has_ledger:
        raise CacheError(
            f"{path} has a ledger but no zarr.json; copy the cache again, or remove the directory"
        )
    if foreign:
        raise InputError(
            f"{path} is not a token cache and not empty (it holds {foreign[0]!r}); choose another path"
        )


def _is_partial(name: str) -> bool:
    return name.startswith("zarr.json.") and name.endswith(PARTIAL)


_MANY = 256  # files of the ledger: more take longer to open than to fold
_OURS = {LOCK, LEDGER, OLD_LEDGER, PLAN, "ids", "tokens", "scale", "cls", "mean", "valid", "clip_key"} | {
    "statistics", "channel_scale"
}  # fmt: skip
