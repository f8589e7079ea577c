"""Writing a token cache: clip by clip in, whole durable shards out."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from featcache.cache.commit import commit_shard
from featcache.cache.files import writing
from featcache.cache.fingerprint import check_same_tokens
from featcache.cache.layout import KEY_BYTES, CacheLayout
from featcache.cache.lock import WriterLock
from featcache.cache.metadata import write_metadata
from featcache.cache.reader import TokenCache
from featcache.cache.recovery import check_target, finished_keys, open_layout, recover, shard_row_count
from featcache.cache.shard import ShardBuffer
from featcache.errors import InputError


class CacheWriter:
    """The one writer of a cache; use it as a context manager.

    Clips gather in memory until a shard is full; a background thread then writes it while the
    next one fills. Leaving the ``with`` block writes the last shard, however few clips it has;
    leaving it by an exception drops that shard (finished ones stay).

    Attributes:
        layout: of the cache, with the shard size it was created with
        done_keys: clip keys of all finished shards
    """

    def __init__(self, path: Path, layout: CacheLayout, lock: WriterLock) -> None:
        self.path = path
        self.layout, self._attributes = open_layout(path, layout)
        self._lock = lock
        self._counts: dict[int, int] = recover(path, self.layout)
        self._shard = 0  # the next one
        self.done_keys: set[bytes] = finished_keys(path, self._counts)
        self._attributes["complete"] = False  # until `close`
        self._write_metadata(durable=True)
        self._buffers = [ShardBuffer(self.layout), ShardBuffer(self.layout)]
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="featcache-writer")
        self._pending: Future[None] | None = None
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
        self._settle()
        self._attributes.update(values)
        with writing(self.path):
            self._write_metadata(durable=True)

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
        with _one_thread():
            vectors: dict[str, Mapping[int, Tensor]] = {
                "mean": mean or {layer: _mean(tokens[layer][:valid]) for layer in self.layout.layers}
            }
            if cls is not None:
                vectors["cls"] = cls
            self._buffers[0].put(clip_id, key, tokens, vectors, valid)
        if self._buffers[0].full:
            self.flush_shard()

    def add_stored(self, clip_id: str, key: bytes, source: TokenCache, row: int) -> None:
        """Take a clip as another cache stores it, bit for bit; see `check_same`."""
        self._buffers[0].put_stored(clip_id, key, source.stored(row))
        if self._buffers[0].full:
            self.flush_shard()

    def check_same(self, source: TokenCache) -> None:
        """Make sure that clips of another cache may be copied into this one.

        Raises:
            MismatchError: it holds other tokens, or the same in another storage dtype.
        """
        check_same_tokens(source.path, source.layout, self.layout)

    @property
    def room(self) -> int:
        """Clips until the shard that fills is full: at least 1."""
        return self.layout.shard_rows - len(self._buffers[0].ids)

    def flush_shard(self) -> None:
        """Hand the clips so far to the background thread as one shard, after it is done with the last."""
        self._settle()
        buffer = self._buffers[0]
        if buffer.ids:
            self._pending = self._executor.submit(self._commit, buffer)
            self._buffers.reverse()
            self._buffers[0].clear()

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
        """Drop the clips of the unfinished shard; a shard that is being written is finished first."""
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

    def _commit(self, buffer: ShardBuffer) -> None:
        while self._shard in self._counts:  # the lowest free number: a repaired cache fills its gaps
            self._shard += 1
        end = self._shard * self.layout.shard_rows + len(buffer.ids)
        rows = max(end, shard_row_count(self._counts, self.layout.shard_rows))
        with writing(self.path):
            commit_shard(self.path, self.layout, self._attributes, self._shard, buffer, rows)
        self._counts[self._shard] = len(buffer.ids)
        self.done_keys.update(buffer.keys)

    def _settle(self) -> None:
        """Wait for the background thread; its error becomes the caller's, each time anew."""
        if self._pending is not None:
            self._pending.result()

    def _write_metadata(self, durable: bool) -> None:
        rows = shard_row_count(self._counts, self.layout.shard_rows)
        write_metadata(self.path, self.layout, self._attributes, rows, durable=durable)

    def _release(self) -> None:
        self._closed = True
        self._executor.shutdown(wait=True)
        self._lock.release()


@contextmanager
def _one_thread() -> Iterator[None]:
    # A clip is too little work to share: beside an encoder and decoders that keep all cores busy,
    # threads waiting for each other made this 20 times slower.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _mean(tokens: Tensor) -> Tensor:
    """(n, D) to (D,) float32; of no tokens it is zero."""
    return tokens.float().mean(dim=0) if len(tokens) else torch.zeros(tokens.shape[1])
