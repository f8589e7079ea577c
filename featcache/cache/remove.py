"""Removing a cache: the files that the format has, and nothing else that lies among them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from featcache.cache.format.durable import PARTIAL, writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER
from featcache.cache.format.metadata import read_attributes
from featcache.cache.write.folders import folders
from featcache.cache.write.lock import LOCK, WriterLock
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
    for name in (LEDGER, RUNS, FAILED, WINDOWS, CLIPS):
        yield path / name
    for name in (LEDGER, RUNS, FAILED, WINDOWS, CLIPS, _DOCUMENT):
        yield path / f"{name}{PARTIAL}"
    patterns = {spec.name: rf"zarr\.json|c\.\d+(\.0){{{len(spec.row_shape)}}}" for spec in layout.arrays()}
    patterns["ids"] = r"\d+\.json"
    for name in folders(layout):
        if not _reached_without_links(path, name):
            continue
        own = re.compile(patterns.get(name, r"zarr\.json"))
        for entry in os.scandir(path / name):
            if own.fullmatch(entry.name.removesuffix(PARTIAL)) and not entry.is_dir(follow_symlinks=False):
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
