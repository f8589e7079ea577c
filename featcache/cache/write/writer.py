"""Writing a token cache: clip by clip in, whole durable shards out."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from featcache.cache.format.durable import writing
from featcache.cache.format.fingerprint import check_same_tokens
from featcache.cache.format.layout import KEY_BYTES, CacheLayout
from featcache.cache.format.metadata import write_metadata
from featcache.cache.read.reader import TokenCache
from featcache.cache.write.clip_buffer import small_blocks
from featcache.cache.write.lock import WriterLock
from featcache.cache.write.recovery import check_target, open_layout, recover, shard_row_count
from featcache.cache.write.shard_queue import ShardQueue
from featcache.errors import InputError

_SUMMED = 512  # rows of a float32 sum: a sum of block sums rounds less off than one long sum


class CacheWriter:
    """The one writer of a cache; use it as a context manager.

    Clips are brought into their stored form one by one; a background thread appends them to the
    files of a shard and makes the shard durable when it is full. Leaving the ``with`` block
    finishes the last shard, however few clips it has; leaving it by an exception drops that shard
    (finished ones stay).

    Attributes:
        layout: of the cache, with the shard size it was created with
    """

    def __init__(self, path: Path, layout: CacheLayout, lock: WriterLock) -> None:
        self.path = path
        self.layout, self._attributes = open_layout(path, layout)
        self._lock = lock
        self._attributes["complete"] = False  # until `close`
        self._queue = ShardQueue(path, self.layout, self._attributes, recover(path, self.layout))
        self._write_metadata()
        self._closed = False

    @classmethod
    def create_or_open(cls, path: str | Path, layout: CacheLayout) -> Self:
        """Open the cache at ``path`` for writing, or create it.

        Raises:
            InputError: something else is there.
            MismatchError: the cache there holds other tokens; the message names the fields.
            CacheError: another process writes to it, or the disk is full.
        """
        path = Path(path)
        check_target(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path)
            try:
                return cls(path, layout, lock)
            except BaseException:
                lock.release()
                raise

    def annotate(self, **values: Any) -> None:
        """Set attributes of the cache, such as ``parent`` or ``clips_expected`` (for a percentage)."""
        self._queue.settle()
        self._attributes.update(values)
        with writing(self.path):
            self._write_metadata()

    def add(
        self,
        clip_id: str,
        key: bytes,
        tokens: Mapping[int, Tensor],
        cls: Mapping[int, Tensor] | None,
        valid: int,
        mean: Mapping[int, Tensor] | None = None,
    ) -> None:
        """Take one clip; its tokens are copied, so the caller may reuse their memory.

        Args:
            key: 16 bytes that name the audio content and segment
            tokens: layer -> (n, D) floats on the CPU, n <= N; the rows beyond n become zeros
            cls: layer -> (D,), where the encoder has one
            valid: tokens that stand for audio; they come first
            mean: layer -> (D,), where the caller knows it better than from ``tokens``

        Raises:
            InputError: a shape is wrong, or a value is not finite or beyond the storage dtype.
            CacheError: an earlier shard could not be written.
        """
        self._check(clip_id, key, tokens, cls, valid)
        with torch.no_grad():
            vectors: dict[str, Mapping[int, Tensor]] = {
                "mean": mean or {layer: _mean(tokens[layer][:valid]) for layer in self.layout.layers}
            }
            if cls is not None:
                vectors["cls"] = cls
            with self._queue.next_buffer() as buffer:
                buffer.put(clip_id, key, tokens, vectors, valid)

    def add_stored(self, clip_id: str, key: bytes, source: TokenCache, row: int) -> None:
        """Take a clip as another cache stores it, bit for bit; see `check_same`."""
        with self._queue.next_buffer() as buffer:
            buffer.put_stored(clip_id, key, source.stored(row))

    def check_same(self, source: TokenCache) -> None:
        """Make sure that clips of another cache may be copied into this one.

        Raises:
            MismatchError: it holds other tokens, or the same in another storage dtype.
        """
        check_same_tokens(source.path, source.layout, self.layout)

    @property
    def done_keys(self) -> set[bytes]:
        """Clip keys of all finished shards."""
        return self._queue.done_keys

    @property
    def room(self) -> int:
        """Clips until the shard that fills is full: at least 1."""
        return self._queue.room

    def flush_shard(self) -> None:
        """End the shard that fills, however few clips it has."""
        self._queue.end_shard()

    def close(self) -> None:
        """Finish the last shard, mark the cache complete and let the next writer in."""
        if self._closed:
            return
        try:
            self.flush_shard()
            self.annotate(complete=True)
        finally:
            self._release()

    def abort(self) -> None:
        """Drop the clips of the unfinished shard; one that is being made durable is finished first."""
        if not self._closed:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(
        self,
        clip_id: str,
        key: bytes,
        tokens: Mapping[int, Tensor],
        cls: Mapping[int, Tensor] | None,
        valid: int,
    ) -> None:
        layout = self.layout
        if len(key) != KEY_BYTES:
            raise InputError(f"clip {clip_id!r}: a key has {KEY_BYTES} bytes, not {len(key)}")
        if (cls is not None) != layout.has_cls:
            raise InputError(f"clip {clip_id!r}: the cache was created with has_cls={layout.has_cls}")
        for layer in layout.layers:
            shape = tuple(tokens[layer].shape) if layer in tokens else ()
            if len(shape) != 2 or shape[1] != layout.dim or shape[0] > layout.num_tokens:
                raise InputError(
                    f"clip {clip_id!r}: layer {layer} needs tokens (n <= {layout.num_tokens}, {layout.dim}), "
                    f"found {shape or 'none'}"
                )
            if not 0 <= valid <= len(tokens[layer]):
                raise InputError(f"clip {clip_id!r}: {valid} valid tokens of {len(tokens[layer])}")

    def _write_metadata(self) -> None:
        rows = shard_row_count(self._queue.counts, self.layout.shard_rows)
        write_metadata(self.path, self.layout, self._attributes, rows, durable=True)

    def _release(self) -> None:
        self._closed = True
        try:
            self._queue.stop()
        finally:
            self._lock.release()


def _mean(tokens: Tensor) -> Tensor:
    """(n, D) to (D,) float32, in the thread of the caller; of no tokens it is zero."""
    if tokens.dtype == torch.float32:
        rows = tokens.detach().numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # as torch: beyond the range it is infinite
            sums = [
                rows[start : start + _SUMMED].sum(axis=0) for start in range(0, max(len(rows), 1), _SUMMED)
            ]
            return torch.from_numpy(np.sum(sums, axis=0) / np.float32(max(len(rows), 1)))
    total = torch.zeros(tokens.shape[1])
    for block in small_blocks(tokens):
        total += block.sum(dim=0, dtype=torch.float32)
    return total / max(len(tokens), 1)
