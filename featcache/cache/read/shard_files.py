"""Open shard files: each mapped and its index parsed once, and no more of them than allowed."""

import mmap
import os
import resource
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.layout import ArraySpec
from featcache.cache.format.ledger import Finished
from featcache.cache.format.shard_index import ABSENT, REPAIR, index_bytes, parse_index
from featcache.cache.read.whole import check_rows, compare_listed, open_listed, read_listed, unreadable
from featcache.errors import CacheError

# An open shard costs two file handles (ours for read-ahead, and the one that mmap keeps) and its
# size in address space. Half of the process's handles are for others.
_HANDLES_PER_SHARD = 2
_MAX_OPEN = 4096


class ShardFile:
    """One open shard file; closed when the last user lets go of it."""

    def __init__(self, cache: Path, spec: ArraySpec, shard: int, shard_rows: int, finished: Finished) -> None:
        self.descriptor = -1
        self.name = str(cache / spec.chunk_file(shard))
        self.descriptor, self.size = open_listed(cache, spec.chunk_file(shard), finished)
        self._spec = spec
        if not spec.sharded:
            check_rows(self.name, self.size, spec, shard_rows)
        self._chunks = self._read_index(shard_rows) if spec.sharded else None
        self._bytes: Bytes | None = None

    @property
    def bytes(self) -> Bytes:
        """The mapped file, read-only."""
        if self._bytes is None:
            try:
                mapped = mmap.mmap(self.descriptor, self.size, prot=mmap.PROT_READ)
            except OSError as error:
                raise unreadable(self.name, error) from error
            self._bytes = np.frombuffer(mapped, dtype=np.uint8)  # keeps the mapping alive
        return self._bytes

    def chunk(self, slot: int) -> tuple[int, int]:
        """(offset, length) of a clip in the file; length 0 where an all-zero clip is not stored."""
        if self._chunks is None:
            return slot * self._spec.row_bytes, self._spec.row_bytes
        offset, length = self._chunks[slot]
        return (0, 0) if offset == ABSENT else (int(offset), int(length))

    def _read_index(self, shard_rows: int) -> "np.ndarray[Any, np.dtype[np.uint64]] | None":
        count = index_bytes(shard_rows)
        if self.size < count:
            raise CacheError(f"{self.name} is cut short; {REPAIR}")
        try:
            raw = os.pread(self.descriptor, count, self.size - count)
        except OSError as error:
            raise unreadable(self.name, error) from error
        index = parse_index(raw, self.size, self.name)
        stored = index[index[:, 0] != ABSENT]
        row_bytes = self._spec.row_bytes
        if self._spec.codec is None and (stored[:, 1] != row_bytes).any():
            raise CacheError(f"{self.name}: a clip has another length than its {row_bytes} bytes")
        in_order = np.array_equal(
            stored[:, 0], np.arange(len(stored), dtype=np.uint64) * np.uint64(row_bytes)
        )
        whole = self._spec.codec is None and np.array_equal(stored, index[: len(stored)])
        return None if in_order and whole else index

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class ShardFiles:
    """The shard files of a cache, opened when first read; the least recently used close first.

    They hold at most half of the process's file handles, and at most half of its address space
    where ``ulimit -v`` sets one.

    Attributes:
        max_open: shard files that stay open
        at_once: clips that one read may keep open beside them
        check_tokens: compare the checksum of a token file, too, before anything of it is read
    """

    def __init__(self, path: Path, shard_rows: int, finished: Finished) -> None:
        self._path, self._shard_rows, self._finished = path, shard_rows, finished
        self.check_tokens = False
        self._sound: set[tuple[str, int]] = set()  # files whose checksums were compared
        self._open: OrderedDict[tuple[str, int], ShardFile] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.max_open, self.max_bytes = _limits()
        self.at_once = max(1, self.max_open // 4)

    def get(self, spec: ArraySpec, shard: int) -> ShardFile:
        """The open file of one shard of one array."""
        key = (spec.name, shard)
        with self._lock:
            file = self._open.get(key)
            if file is None:
                file = ShardFile(self._path, spec, shard, self._shard_rows, self._finished)
                self._open[key] = file
                self._bytes += file.size
                self._shrink()
            self._check(spec, key)  # also of one that was opened before tokens were to be checked
            self._open.move_to_end(key)
            return file

    def _check(self, spec: ArraySpec, key: tuple[str, int]) -> None:
        # Scales and vectors are a thousandth of the tokens: their checksums cost microseconds a shard,
        # once, and a wrong scale spoils every value of its token.
        # Those of a shard of tokens take 17 ms (192 MB in memory), so whoever reads them all may ask for it.
        if key in self._sound or (spec.sharded and not self.check_tokens):
            return
        (compare_listed if spec.sharded else read_listed)(self._path, spec.chunk_file(key[1]), self._finished)
        self._sound.add(key)

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Let go of every file that nobody else uses."""
        with self._lock:
            self._open.clear()
            self._bytes = 0

    def _shrink(self) -> None:
        while len(self._open) > 1 and (len(self._open) > self.max_open or self._bytes > self.max_bytes):
            _, file = self._open.popitem(last=False)
            self._bytes -= file.size


def _limits() -> tuple[int, float]:
    handles = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    max_open = _MAX_OPEN if handles == resource.RLIM_INFINITY else handles // (2 * _HANDLES_PER_SHARD)
    space = resource.getrlimit(resource.RLIMIT_AS)[0]
    max_bytes = float("inf") if space == resource.RLIM_INFINITY else space / 2
    return max(1, min(max_open, _MAX_OPEN)), max_bytes
