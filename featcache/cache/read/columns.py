"""Where each clip lies, and the small arrays of a cache read whole: vectors, counts, keys and ids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from featcache.cache.format.layout import ArraySpec
from featcache.cache.format.ledger import Finished
from featcache.cache.format.shard_index import REPAIR, decode_ids, ids_file
from featcache.cache.read.whole import check_rows, read_listed, unreadable
from featcache.errors import CacheError
from featcache.files import read_bytes

Place = tuple[int, int]  # (shard, slot)


class ClipIndex:
    """The finished clips in shard order; holes at the end of a partly filled shard are skipped."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self.shards = sorted(counts)
        self.counts = [counts[shard] for shard in self.shards]
        self._numbers = np.array(self.shards, dtype=np.int64)
        self._ends = np.cumsum(self.counts, dtype=np.int64)  # after the last clip of each shard

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.shards else 0

    def check(self, rows: "Sequence[int] | np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The rows as an array.

        Raises:
            IndexError: a row is not in 0..len-1.
        """
        clips = np.asarray(rows, dtype=np.int64).reshape(-1)
        if clips.size and (clips.min() < 0 or clips.max() >= len(self)):
            raise IndexError(f"rows {clips.min()}..{clips.max()} of a cache with {len(self)} clips")
        return clips

    def places(self, rows: Sequence[int]) -> list[Place]:
        """Where these clips are.

        Raises:
            IndexError: a row is not in 0..len-1.
        """
        clips = self.check(rows)
        position = np.searchsorted(self._ends, clips, side="right")
        starts = self._ends[position] - np.asarray(self.counts, dtype=np.int64)[position]
        return list(zip(self._numbers[position].tolist(), (clips - starts).tolist(), strict=True))


def read_column(path: Path, spec: ArraySpec, finished: Finished) -> "np.ndarray[Any, Any]":
    """One array without its holes: (n, *row_shape).

    Raises:
        CacheError: a file is missing, or not what the ledger says.
    """
    clips = ClipIndex(finished.counts)
    column = np.empty((len(clips), spec.row_bytes), dtype=np.uint8)
    start = 0
    for shard, count in zip(clips.shards, clips.counts, strict=True):
        if not count:  # all of its clips failed: it has no files
            continue
        name = spec.chunk_file(shard)
        chunk = read_listed(path, name, finished)
        check_rows(path / name, chunk.nbytes, spec, finished.shard_rows)
        column[start : start + count].reshape(-1)[:] = chunk[: count * spec.row_bytes]
        start += count
    return column.reshape(-1).view(spec.zarr).reshape(len(clips), *spec.row_shape)


def read_ids(path: Path, finished: Finished) -> list[str]:
    """The ids of all clips.

    Raises:
        CacheError: as `read_column`.
    """
    ids: list[str] = []
    for shard, count in sorted(finished.counts.items()):
        if not count:
            continue
        data = read_listed(path, ids_file(shard), finished).tobytes()
        own = decode_ids(data)
        if own is None or len(own) != count:
            raise CacheError(f"{path / ids_file(shard)} is not a list of {count} ids; {REPAIR}")
        ids += own
    return ids


def read_scale(path: Path, spec: ArraySpec) -> "np.ndarray[Any, Any]":
    """The scales (D,) float32 of a layer's channels.

    Raises:
        CacheError: the file is missing, or not as it was written.
    """
    name = path / spec.only_file
    try:
        content = read_bytes(name)
    except OSError as error:
        raise unreadable(name, error) from error
    scale, checksum = content[:-4], content[-4:]
    if len(scale) != spec.row_bytes or crc32c(scale).to_bytes(4, "little") != checksum:
        raise CacheError(f"{name} is damaged: its checksum is wrong; copy the cache again")
    return np.frombuffer(scale, dtype="<f4").copy()


def read_statistics(path: Path, spec: ArraySpec, finished: Finished) -> "np.ndarray[Any, Any]":
    """The tables of a layer's channels, of every shard that has clips: (shards, 4, D) float64.

    Raises:
        CacheError: as `read_column`.
    """
    shards = [shard for shard, count in sorted(finished.counts.items()) if count]
    chunks = [read_listed(path, spec.chunk_file(shard), finished) for shard in shards]
    return np.array([chunk.view("<f8").reshape(spec.row_shape) for chunk in chunks]).reshape(
        -1, *spec.row_shape
    )
