"""Clips on their way to disk: a few buffers, a thread that writes them, and one that ends shards."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from torch import Tensor

from featcache.cache.format.durable import writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import Finished
from featcache.cache.format.metadata import write_metadata
from featcache.cache.write.clip_buffer import ClipBuffer
from featcache.cache.write.in_order import InOrder
from featcache.cache.write.open_shard import OpenShard
from featcache.cache.write.plan import ShardPlan
from featcache.cache.write.recovery import finished_keys, shard_row_count
from featcache.errors import CacheError, InputError
from featcache.spans import Spans

# Clips that may wait for the disk: 2 to 8 buffers, of 64 MB together if they can.
_CLIPS_AHEAD = (2, 8)
_BYTES_AHEAD = 64 * 2**20


class ShardQueue:
    """Appends clips to a shard in one thread; another makes a full shard durable meanwhile.

    Attributes:
        finished: the finished shards
        done_keys: their clips' keys
        room: clips until the shard that fills is full: at least 1
        lost: shards that another writer finished while they were written here
        spans: where the time of the threads, and of waiting for them, is counted
    """

    def __init__(
        self, path: Path, layout: CacheLayout, attributes: dict[str, Any], finished: Finished
    ) -> None:
        self._path, self._layout, self._attributes = path, layout, attributes
        self.finished = finished
        self.done_keys: set[bytes] = finished_keys(path, finished)
        self.room = layout.shard_rows
        self.lost: list[int] = []
        self._planned = False  # shards are begun by their numbers
        self._buffers = [ClipBuffer(layout) for _ in range(_num_buffers(layout))]
        self._free: SimpleQueue[ClipBuffer] = SimpleQueue()
        for buffer in self._buffers:
            self._free.put(buffer)
        self._writer = InOrder("featcache-writer", self._failing)
        self._sealer = ThreadPoolExecutor(1, thread_name_prefix="featcache-sealer")
        self._sealing: Future[None] | None = None
        self._number = 0  # no shard number below it is free
        self._shard: OpenShard | None = None  # only the writing thread touches it until `stop`
        self._failure: BaseException | None = None
        self.spans = Spans()
        self._pid = os.getpid()

    def scale_channels(self, scales: Mapping[int, Tensor]) -> None:
        """Set the scales of channels, before the first clip."""
        for buffer in self._buffers:
            buffer.channels = scales

    def begin_shard(self, number: int) -> None:
        """Have the next clips put into this shard, until `end_shard`."""
        self.check()
        self._planned = True
        self._writer.put(self._begin, number)
        self.room = self._layout.shard_rows

    @contextmanager
    def next_buffer(self) -> Iterator[ClipBuffer]:
        """A buffer to fill; it then goes to the thread. Waits while the disk is slower than the caller.

        Raises:
            CacheError: an earlier clip could not be written.
        """
        self.check()
        with self.spans.span("wait for disk"):
            buffer = self._free.get()
        try:
            yield buffer
            self._writer.put(self._append, buffer)
        except BaseException:
            self._free.put(buffer)
            raise
        self.room -= 1
        if self.room == 0 and not self._planned:
            self.end_shard()

    def end_shard(self, failed: Mapping[str, dict[str, str]] | None = None, *, if_any: bool = False) -> None:
        """Have the shard that fills made durable, however few clips it has.

        Args:
            failed: clips that were to be in it, as in `Entry`
            if_any: leave it as it is where it has none
        """
        self.check()
        self._writer.put(self._end, dict(failed or {}), if_any)
        self.room = self._layout.shard_rows

    def settle(self) -> None:
        """Wait for the threads; their error becomes the caller's, each time anew."""
        self.check()
        with self.spans.span("wait for disk"):
            self._writer.put(self._wait_for_sealer)
            self._writer.wait()
        self.check()

    def stop(self) -> None:
        """Wait for the threads and drop the shard that has not ended; a forked child changes nothing."""
        if os.getpid() != self._pid:
            return
        try:
            self._writer.stop()
        finally:
            self._sealer.shutdown(wait=True)
            self._failure = self._failure or InputError("this cache writer is closed; open the cache again")
            if self._shard is not None:
                self._shard.discard()

    def check(self) -> None:
        """Raise what stopped the threads, or say that this process must not write."""
        if os.getpid() != self._pid:
            raise InputError("a cache writer belongs to the process that opened it, not to a forked child")
        if self._failure is not None:
            raise self._failure

    def _append(self, buffer: ClipBuffer) -> None:
        try:
            if self._failure is None:
                with self.spans.span("write"):
                    self._growing().append(buffer)
        finally:
            self._free.put(buffer)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Keep the first error for the caller: no clip is written after it."""
        try:
            with writing(self._path):
                yield
        except BaseException as error:
            self._failure = self._failure or error

    def _begin(self, number: int) -> None:
        if self._failure is None:
            self._shard = OpenShard(self._path, self._layout, number)

    def _growing(self) -> OpenShard:
        if self._shard is None:
            plan = ShardPlan(self._path, self._layout.shard_rows)
            # The lowest free one: a repaired cache fills its gaps.
            while self._number in self.finished.counts or self._number in plan:
                self._number += 1
            self._shard = OpenShard(self._path, self._layout, self._number)
            self._number += 1
        return self._shard

    def _end(self, failed: dict[str, dict[str, str]], if_any: bool) -> None:
        self._wait_for_sealer()  # at most one full shard is not durable yet
        if self._shard is not None and self._failure is None and not (if_any and not self._shard.ids):
            self._sealing = self._sealer.submit(self._seal, self._shard, failed)
            self._shard = None

    def _seal(self, shard: OpenShard, failed: dict[str, dict[str, str]]) -> None:
        # Also where the shard after it has failed meanwhile: this one is whole.
        with self._failing(), self.spans.span("make durable"):
            try:
                won = shard.finish(self.finished, failed)
            except BaseException:
                shard.discard()
                raise
            self.done_keys.update(shard.keys)
            if not won:
                self.lost.append(shard.number)
                if not self._planned:
                    raise CacheError(
                        f"another process writes to {self._path} and has finished shard {shard.number}; "
                        "run the same command again when it has ended"
                    )
            # Not durable: shapes follow from the ledger and are written again on opening and closing.
            rows = shard_row_count(self.finished.counts, self._layout.shard_rows)
            write_metadata(self._path, self._layout, self._attributes, rows, durable=False)

    def _wait_for_sealer(self) -> None:
        if self._sealing is not None:
            self._sealing.result()


def _num_buffers(layout: CacheLayout) -> int:
    fewest, most = _CLIPS_AHEAD
    return min(most, max(fewest, _BYTES_AHEAD // layout.clip_bytes))
