"""The small arrays of a cache, read whole: vectors, counts, keys and ids."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from featcache.cache.clips import ClipIndex
from featcache.cache.layout import ArraySpec
from featcache.cache.shard import REPAIR, ids_file
from featcache.errors import CacheError


def read_column(path: Path, spec: ArraySpec, clips: ClipIndex) -> "np.ndarray[Any, Any]":
    """One array without its holes: (n, *row_shape).

    Raises:
        CacheError: a file is missing or cut short.
    """
    column = np.empty((len(clips), spec.row_bytes), dtype=np.uint8)
    start = 0
    for shard, count in zip(clips.shards, clips.counts, strict=True):
        part = column[start : start + count]
        name = path / spec.chunk_file(shard)
        try:
            with name.open("rb", buffering=0) as file:
                read = file.readinto(part.reshape(-1).data)
        except FileNotFoundError:
            read = 0
        if read != part.nbytes:
            raise CacheError(f"{name} is missing or cut short; {REPAIR}")
        start += count
    return column.reshape(-1).view(spec.zarr).reshape(len(clips), *spec.row_shape)


def read_ids(path: Path, clips: ClipIndex) -> list[str]:
    """The ids of all clips."""
    ids: list[str] = []
    for shard, count in zip(clips.shards, clips.counts, strict=True):
        try:
            ids += json.loads((path / ids_file(shard)).read_text(encoding="utf-8"))[:count]
        except (FileNotFoundError, ValueError):
            raise CacheError(f"{path / ids_file(shard)} is missing or damaged; {REPAIR}") from None
    return ids
