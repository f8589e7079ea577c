"""Writing a token cache: clip by clip in, whole durable shards out."""

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from featcache.cache.format.durable import PARTIAL, writing
from featcache.cache.format.fingerprint import check_same_tokens
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import fold
from featcache.cache.format.metadata import write_metadata
from featcache.cache.read.reader import TokenCache
from featcache.cache.write.first_clips import FirstClips
from featcache.cache.write.given_clip import GivenClip, check_clip
from featcache.cache.write.lock import SharedLock, WriterLock
from featcache.cache.write.plan import ShardPlan
from featcache.cache.write.recovery import (
    check_target,
    finished_keys,
    open_layout,
    recover,
    remove_left_overs,
    shard_row_count,
)
from featcache.cache.write.shard_queue import ShardQueue
from featcache.spans import Spans


class CacheWriter:
    """A writer of a cache; use it as a context manager.

    It is the only one, unless it was opened as one of several that write planned shards: `plan` says which
    clips make which shard, and `begin_shard` and `end_shard` enclose the clips of one.

    Clips are brought into their stored form one by one; a background thread appends them to the
    files of a shard and makes the shard durable when it is full. The first few are held until the scales of
    channels follow from them, and until it is sure that the storage dtype keeps all channels. Leaving the
    ``with`` block finishes the last shard, however few clips it has; leaving it by an exception drops that
    shard (finished ones stay).

    Attributes:
        layout: of the cache, with the shard size it was created with
        first: the first clips, from which the scales of channels follow
        elsewhere: numbers of shards that are finished in another place, and none of this writer's
    """

    def __init__(self, path: Path, layout: CacheLayout, lock: WriterLock | SharedLock) -> None:
        self.path = path
        self.layout, self._attributes = open_layout(path, layout)
        self._lock, self._alone = lock, isinstance(lock, WriterLock)
        self._attributes["complete"] = False  # until `close`
        finished = recover(path, self.layout, alone=self._alone)
        self._queue = ShardQueue(path, self.layout, self._attributes, finished)
        self._known = len(finished.counts)  # finished shards whose keys are among `done_keys`
        self._write_metadata()
        self.first = FirstClips(path, self.layout, self._queue)
        self.elsewhere: Set[int] = frozenset()
        self._closed = False

    @classmethod
    def create_or_open(cls, path: str | Path, layout: CacheLayout, *, alone: bool = True) -> Self:
        """Open the cache at ``path`` for writing, or create it.

        Args:
            alone: no other process may write to it meanwhile; several must write different planned shards

        Raises:
            InputError: something else is there.
            MismatchError: the cache there holds other tokens; the message names the fields.
            CacheError: another process writes to it, or the disk is full.
        """
        path = Path(path)
        check_target(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path) if alone else SharedLock(path)
            try:
                return cls(path, layout, lock)
            except BaseException:
                lock.release()
                raise

    def plan(self, keys: Iterable[bytes], *, again: Iterable[bytes] = ()) -> dict[int, list[bytes]]:
        """Plan which clips make which shard, as far as that has not been done.

        Args:
            keys: of the clips to be stored, in the order of the manifest
            again: of clips that could not be decoded when their shard was written, and now can

        Returns:
            Every planned shard that is not finished, with the keys of its clips.
        """
        wanted = list(dict.fromkeys(keys))
        self._read_again()
        ended = self._queue.finished.counts.keys() | self.elsewhere
        with writing(self.path):
            plan = ShardPlan(self.path, self.layout.shard_rows)
            while missing := self._unplanned(wanted, plan, ended):
                plan.add(missing, ended)
            plan.add(again, ended)
        return {shard: own for shard, own in plan.shards() if shard not in ended}

    def _unplanned(self, keys: Iterable[bytes], plan: ShardPlan, ended: Set[int]) -> list[bytes]:
        """Those that are neither stored nor failed, and that no unfinished shard is for.

        A shard that was cut short has ended, so what it was to hold besides is among them.
        """
        tried = {bytes.fromhex(key) for key in self.failed}
        planned = {key for shard, own in plan.shards() if shard not in ended for key in own}
        return [key for key in keys if key not in planned and not (key in self.done_keys or key in tried)]

    def lacks(self, key: bytes) -> bool:
        """Whether a clip is neither stored nor known to have failed."""
        return key not in self.done_keys and key.hex() not in self.failed

    def refresh(self) -> None:
        """Wait until the shards that were ended are durable, and take in those of other writers."""
        self._queue.settle()
        self._read_again()

    def _read_again(self) -> None:
        finished = self._queue.finished
        finished.read_again()
        if len(finished.counts) != self._known:
            self._known = len(finished.counts)
            self._queue.done_keys |= finished_keys(self.path, finished)

    def is_finished(self, shard: int) -> bool:
        """Whether a shard is finished by now, by whichever writer."""
        return self._queue.finished.has_now(shard)

    def is_begun(self, shard: int) -> bool:
        """Whether some writer, at work or dead, has files of this shard that are not finished."""
        file = self.path / self.layout.tokens(self.layout.layers[0]).chunk_file(shard)
        return any(file.parent.glob(f"{file.name}.*{PARTIAL}"))

    def begin_shard(self, number: int) -> None:
        """Have the next clips put into this planned shard, until `end_shard`."""
        self._queue.begin_shard(number)

    def end_shard(self, failed: Mapping[str, dict[str, str]] | None = None) -> None:
        """End the shard that fills, however few clips it has.

        Args:
            failed: clips that were to be in it and could not be decoded: key (hex) -> {"id", "reason"}
        """
        self.first.let_go()
        self._queue.end_shard(failed)

    def cut_shard(self, failed: Mapping[str, dict[str, str]] | None = None) -> None:
        """End the shard that fills, if it has clips, and wait until it is durable.

        `plan` then plans anew what it was to hold besides.
        """
        self.first.let_go()
        self._queue.end_shard(failed, if_any=True)
        self._queue.settle()

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """Clips of finished shards that could not be decoded: key (hex) -> {"id", "reason"}."""
        return self._queue.finished.failed

    @property
    def lost(self) -> list[int]:
        """Shards that another writer finished while this one wrote them: the other's count."""
        return self._queue.lost

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
        self._queue.check()
        clip = GivenClip(clip_id, key, tokens, cls, mean, valid)
        check_clip(self.layout, clip)
        self.first.add(clip)

    def add_stored(self, clip_id: str, key: bytes, source: TokenCache, row: int) -> None:
        """Take a clip as another cache stores it, bit for bit; see `check_same`."""
        self.first.let_go()
        tokens = {layer: source.tokens([row], layer)[0] for layer in self.layout.layers}
        with self._queue.next_buffer() as buffer:
            buffer.put_stored(clip_id, key, source.stored(row), tokens)

    def check_same(self, source: TokenCache) -> None:
        """Make sure that clips of another cache may be copied into this one.

        Raises:
            MismatchError: it holds other tokens, or the same in another storage dtype.
        """
        check_same_tokens(source.path, source.layout, self.layout)
        self.first.check_scales(source)

    @property
    def done_keys(self) -> set[bytes]:
        """Clip keys of all finished shards."""
        return self._queue.done_keys

    def count_time(self, spans: Spans) -> None:
        """Have the time of writing, and of waiting for it, counted there."""
        self._queue.spans = spans

    @property
    def room(self) -> int:
        """Clips until the shard that fills is full: at least 1."""
        return self._queue.room

    def close(self, *, complete: bool = True) -> None:
        """Finish the last shard, mark the cache complete and let the next writer in.

        Args:
            complete: all that the cache is to hold is there, also of other writers
        """
        if self._closed:
            return
        try:
            self.end_shard()
            self._queue.settle()
            if complete:
                with writing(self.path):
                    self._queue.finished.read_again()
                    remove_left_overs(self.path, self.layout, self._queue.finished, alone=self._alone)
                    fold(self.path)
            self.annotate(complete=complete)
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

    def _write_metadata(self) -> None:
        rows = shard_row_count(self._queue.finished.counts, self.layout.shard_rows)
        write_metadata(self.path, self.layout, self._attributes, rows, durable=True)

    def _release(self) -> None:
        self._closed = True
        try:
            self._queue.stop()
        finally:
            self._lock.release()
