"""Clips on their way to disk: a few buffers, a thread that writes them, and one that ends shards."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from featcache.cache.format.durable import writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import Finished
from featcache.cache.write.clip_buffer import ClipBuffer
from featcache.cache.write.open_shard import OpenShard
from featcache.cache.write.recovery import finished_keys, shard_row_count
from featcache.errors import InputError

# Clips that may wait for the disk: 2 to 8 buffers, of 64 MB together if they can.
_CLIPS_AHEAD = (2, 8)
_BYTES_AHEAD = 64 * 2**20


class ShardQueue:
    """Appends clips to a shard in one thread; another makes a full shard durable meanwhile.

    Attributes:
        counts: shard -> clips of the finished shards
        done_keys: their clips' keys
        room: clips until the shard that fills is full: at least 1
    """

    def __init__(
        self, path: Path, layout: CacheLayout, attributes: dict[str, Any], finished: Finished
    ) -> None:
        self._path, self._layout, self._attributes = path, layout, attributes
        self.counts = dict(finished.counts)
        self.done_keys: set[bytes] = finished_keys(path, finished)
        self.room = layout.shard_rows
        self._free: SimpleQueue[ClipBuffer] = SimpleQueue()
        for _ in range(_num_buffers(layout)):
            self._free.put(ClipBuffer(layout))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="featcache-writer")
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="featcache-sealer")
        self._sealing: Future[None] | None = None
        self._number = 0  # no shard number below it is free
        self._shard: OpenShard | None = None  # only the writing thread touches it until `stop`
        self._failure: BaseException | None = None
        self._pid = os.getpid()

    @contextmanager
    def next_buffer(self) -> Iterator[ClipBuffer]:
        """A buffer to fill; it then goes to the thread. Waits while the disk is slower than the caller.

        Raises:
            CacheError: an earlier clip could not be written.
        """
        self._check()
        buffer = self._free.get()
        try:
            yield buffer
            self._writer.submit(self._append, buffer)
        except BaseException:
            self._free.put(buffer)
            raise
        self.room -= 1
        if self.room == 0:
            self.end_shard()

    def end_shard(self) -> None:
        """Have the shard that fills made durable, however few clips it has."""
        self._check()
        self._writer.submit(self._end)
        self.room = self._layout.shard_rows

    def settle(self) -> None:
        """Wait for the threads; their error becomes the caller's, each time anew."""
        self._check()
        self._writer.submit(self._wait_for_sealer).result()
        self._check()

    def stop(self) -> None:
        """Wait for the threads and drop the shard that has not ended; a forked child changes nothing."""
        if os.getpid() != self._pid:
            return
        try:
            self._writer.shutdown(wait=True)
        finally:
            self._sealer.shutdown(wait=True)
            self._failure = self._failure or InputError("this cache writer is closed; open the cache again")
            if self._shard is not None:
                self._shard.discard()

    def _append(self, buffer: ClipBuffer) -> None:
        if self._failure is None:
            with self._failing():
                self._growing().append(buffer)
        self._free.put(buffer)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Keep the first error for the caller: no clip is written after it."""
        try:
            with writing(self._path):
                yield
        except BaseException as error:
            self._failure = self._failure or error

    def _growing(self) -> OpenShard:
        if self._shard is None:
            while self._number in self.counts:  # the lowest free one: a repaired cache fills its gaps
                self._number += 1
            self._shard = OpenShard(self._path, self._layout, self._number)
            self._number += 1
        return self._shard

    def _end(self) -> None:
        self._wait_for_sealer()  # at most one full shard is not durable yet
        if self._shard is not None and self._failure is None:
            self._sealing = self._sealer.submit(self._seal, self._shard)
            self._shard = None

    def _seal(self, shard: OpenShard) -> None:
        # Also where the shard after it has failed meanwhile: this one is whole.
        end = shard.number * self._layout.shard_rows + len(shard.ids)
        rows = max(end, shard_row_count(self.counts, self._layout.shard_rows))
        with self._failing():
            try:
                shard.finish(self._attributes, rows)
            except BaseException:
                shard.discard()
                raise
            self.counts[shard.number] = len(shard.ids)
            self.done_keys.update(shard.keys)

    def _wait_for_sealer(self) -> None:
        if self._sealing is not None:
            self._sealing.result()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise InputError("a cache writer belongs to the process that opened it, not to a forked child")
        if self._failure is not None:
            raise self._failure


def _num_buffers(layout: CacheLayout) -> int:
    clip_bytes = sum(spec.row_bytes for spec in layout.arrays())
    fewest, most = _CLIPS_AHEAD
    return min(most, max(fewest, _BYTES_AHEAD // clip_bytes))
