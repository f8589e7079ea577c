"""Removing a cache: the files that the format has, and nothing else that lies among them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from featcache.cache.format.durable import partials, writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER, OLD_LEDGER
from featcache.cache.format.metadata import read_attributes
from featcache.cache.write.folders import folders
from featcache.cache.write.lock import LOCK, WriterLock
from featcache.cache.write.plan import PLAN
from featcache.errors import CacheError, InputError
from featcache.files import reason
from featcache.records import CLIPS, FAILED, RUNS, WINDOWS

_DOCUMENT = "zarr.json"


def check_removable(path: Path) -> None:
    """Refuse a path that cannot be removed as a cache.

    Raises:
        InputError: it is a symbolic link, or the folder one works in (or above it).
        MissingError, CacheError: it is no token cache.
    """
    if path.is_symlink():
        raise InputError(
            f"{path} is a symbolic link to {path.resolve()}; name that cache, or remove the link"
        )
    if Path.cwd().is_relative_to(path.resolve()):
        raise InputError(f"{path} is the folder you are in, or above it; go elsewhere and name the cache")
    CacheLayout.from_attributes(read_attributes(path), path)


def remove_cache(path: Path) -> list[str]:
    """Remove the files of the cache at ``path``, and its folders where nothing else is in them.

    Returns:
        The paths below ``path`` that stay, for they are not the cache's.

    Raises:
        InputError, MissingError, CacheError: as `check_removable`; a process writes to it, or a file
            cannot be removed.
    """
    check_removable(path)
    layout = CacheLayout.from_attributes(read_attributes(path), path)
    with writing(path):
        lock = WriterLock(path)  # not while it is being written
    try:
        for file in _files(path, layout):
            file.unlink(missing_ok=True)
        for name in reversed(folders(layout)):
            if _reached_without_links(path, name):
                _remove_empty(path / name)
        for name in (_DOCUMENT, LOCK):  # last: until then the same command goes on
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(f"cannot remove {error.filename or path}: {reason(error)}") from error
    finally:
        lock.release()
    _remove_empty(path)
    return sorted(str(entry.relative_to(path)) for entry in path.iterdir()) if path.exists() else []


def _files(path: Path, layout: CacheLayout) -> Iterator[Path]:
    """The cache's files, the ledger first: a cache that is half removed has no finished shard."""
    patterns = {
        spec.name: rf"zarr\.json|c{'' if spec.per == 'cache' else r'[.][0-9]+'}(\.0){{{len(spec.row_shape)}}}"
        for spec in layout.all_arrays()
    }
    patterns |= {"ids": r"\d+\.json", PLAN: r"\d+"}
    patterns[LEDGER] = r"[0-9a-f]{8}\.jsonl|\d+\.(json|commit)"
    yield from _own_files(path, LEDGER, patterns[LEDGER])
    for name in (OLD_LEDGER, RUNS, FAILED, WINDOWS, CLIPS):
        yield path / name
    for partial, name in partials(path):
        if name in (OLD_LEDGER, RUNS, FAILED, WINDOWS, CLIPS, _DOCUMENT):
            yield partial
    for name in folders(layout):
        yield from _own_files(path, name, patterns.get(name, r"zarr\.json"))


def _own_files(path: Path, name: str, pattern: str) -> Iterator[Path]:
    if not _reached_without_links(path, name):
        return
    own = re.compile(pattern)
    left = {partial.name: meant for partial, meant in partials(path / name)}
    for entry in os.scandir(path / name):
        if own.fullmatch(left.get(entry.name, entry.name)) and not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)


def _reached_without_links(path: Path, name: str) -> bool:
    """Whether ``path / name`` is a folder inside ``path``."""
    steps = [path / name, *(path / name).parents]
    inside = steps[: steps.index(path)]
    return (path / name).is_dir() and not any(step.is_symlink() for step in inside)


def _remove_empty(folder: Path) -> None:
    if any(folder.iterdir()):
        return
    try:
        folder.rmdir()
    except OSError as error:
        raise CacheError(f"cannot remove {folder}: {reason(error)}") from error
