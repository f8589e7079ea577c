"""Fill an open cache with the clips it lacks: present, copied from another cache, or encoded."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tqdm import tqdm

from featcache.audio.decode_ahead import decode_ahead
from featcache.audio.load import Decoded
from featcache.cache import CacheWriter, TokenCache
from featcache.devices import cores
from featcache.encoders.base import Encoder, decode_seconds
from featcache.errors import AudioError, Interrupted
from featcache.extraction.canaries import check_canaries
from featcache.extraction.runner import Batcher, ClipTokens, Runner
from featcache.manifest import Clip
from featcache.records import record_failed

# Clips of ten seconds are often 10.001 s long: what is cut of them is no loss worth a word.
CUT_SLACK = 0.01  # of the clip length


@dataclass(kw_only=True)
class Extraction:
    """What one run did."""

    cache: Path
    manifest: Path
    clips: int  # in the manifest, windows counted
    encoded: int = 0
    reused: int = 0  # copied from other caches
    present: int = 0  # already in this cache, or the same audio twice in the manifest
    canaries: int = 0  # stored clips that were encoded again and found the same
    failed: dict[str, str] = field(default_factory=dict)  # clip id -> reason
    # Clips longer than the encoder takes by more than a hundredth: only their beginning was encoded.
    cut: int = 0
    cut_median: float = 0.0  # [s] by which they are longer
    cut_largest: float = 0.0  # [s]
    num_bytes: int = 0  # of the cache on disk
    seconds: float = 0.0


class _Item(NamedTuple):
    id: str
    key: bytes


class Filler:
    """One run's work on one cache."""

    def __init__(
        self,
        writer: CacheWriter,
        runner: Runner,
        result: Extraction,
        *,
        batch_size: int,
        workers: int | None,
        accept_truncated: bool = False,
        progress: bool = False,
    ) -> None:
        self._writer, self._runner, self._result = writer, runner, result
        self._batch_size = batch_size
        self._workers = workers or min(8, cores())
        self._accept_truncated = accept_truncated
        self._progress = progress
        self._cut: list[float] = []  # [s] what each encoded clip lost at its end
        self._waiting: set[str] = set()  # clips that this run has not come to yet

    def fill(
        self,
        clips: Sequence[Clip],
        keys: Sequence[bytes | None],
        reuse: Sequence[TokenCache],
        *,
        split: Iterable[str] = (),
    ) -> None:
        """Bring every clip into the cache.

        Args:
            keys: content key of each clip, None where its file cannot be read
            split: ids of clips that are windows now: what is listed of them no longer counts

        Raises:
            Interrupted: Ctrl-C; the unfinished shard is dropped, what is finished stays.
        """
        pending: dict[bytes | str, Clip] = {}  # unreadable files under their id: decoding says why
        for clip, key in zip(clips, keys, strict=True):
            pending.setdefault(clip.id if key is None else key, clip)
        unread = sum(isinstance(key, str) for key in pending)
        self._waiting.update(clip.id for clip in pending.values())
        known = self._writer.done_keys.union(key for key in pending if isinstance(key, bytes))
        self._writer.annotate(clips_expected=len(known) + unread)
        try:
            self._skip_present(pending, len(clips))
            for other in reuse:
                self._copy_from(other, pending)
            self._encode(pending)
        except KeyboardInterrupt:
            self._writer.abort()
            raise Interrupted(
                f"stopped; {len(self._writer.done_keys)} clips are stored in {self._result.cache}: "
                "run the same command again to go on"
            ) from None
        finally:
            self._count_cut()
            # What an interrupted run did not come to keeps its entry.
            tried = {*split, *(clip.id for clip in clips)} - self._waiting
            record_failed(self._result.cache, tried, self._result.failed)

    def _count_cut(self) -> None:
        slack = CUT_SLACK * self._runner.encoder.clip_seconds
        cut = [seconds for seconds in self._cut if seconds > slack]
        if cut:
            self._result.cut = len(cut)
            self._result.cut_median, self._result.cut_largest = median(cut), max(cut)

    def _skip_present(self, pending: dict[bytes | str, Clip], num_clips: int) -> None:
        done = self._writer.done_keys
        present = {key: pending.pop(key) for key in list(pending) if isinstance(key, bytes) and key in done}
        self._result.present = num_clips - len(pending)
        self._waiting.difference_update(clip.id for clip in present.values())
        if present:
            self._result.canaries = check_canaries(TokenCache.open(self._result.cache), present, self._runner)

    def _copy_from(self, other: TokenCache, pending: dict[bytes | str, Clip]) -> None:
        """Copy what another cache holds; the same canaries guard it."""
        self._writer.check_same(other)
        keys = [key for key in pending if isinstance(key, bytes)]
        rows = {key: row for key, row in zip(keys, other.rows_of(keys), strict=True) if row is not None}
        self._result.canaries += check_canaries(other, {key: pending[key] for key in rows}, self._runner)
        for key, row in rows.items():
            clip = pending.pop(key)
            self._writer.add_stored(clip.id, key, other, row)
            self._waiting.discard(clip.id)
            self._result.reused += 1

    def _encode(self, pending: Mapping[bytes | str, Clip]) -> None:
        encoder, writer, result = self._runner.encoder, self._writer, self._result
        batcher = Batcher(self._runner, self._batch_size, self._store)
        keys = {clip.id: key for key, clip in pending.items()}
        decoded = decode_ahead(
            list(pending.values()),
            sample_rate=encoder.sample_rate,
            max_seconds=decode_seconds(encoder),
            workers=self._workers,
            ahead=2 * self._batch_size,
            accept_truncated=self._accept_truncated,
        )
        room = writer.room
        with tqdm(
            total=len(pending), unit="clip", desc="extract", disable=None if self._progress else True
        ) as bar:
            for clip, sound in decoded:
                bar.update()
                self._waiting.discard(clip.id)
                key = keys[clip.id]
                sound = _long_enough(sound, encoder)
                if isinstance(sound, AudioError) or isinstance(key, str):
                    result.failed[clip.id] = str(sound)
                    continue
                decoded_seconds = len(sound.waveform) / encoder.sample_rate
                self._cut.append(sound.cut_seconds + max(0.0, decoded_seconds - encoder.clip_seconds))
                batcher.push(_Item(clip.id, key), sound.waveform)
                room -= 1
                if room == 0:
                    # No batch reaches over the end of a shard: a run that starts at any shard
                    # makes the same batches, and so the same bytes, as one that did not stop.
                    batcher.flush()
                    room = writer.room
            batcher.flush()

    def _store(self, item: _Item, encoded: ClipTokens) -> None:
        self._writer.add(item.id, item.key, encoded.tokens, encoded.cls, encoded.valid)
        self._result.encoded += 1


def _long_enough(sound: Decoded | AudioError, encoder: Encoder) -> Decoded | AudioError:
    """The sound, or why the encoder cannot take it: one short clip must not stop a run."""
    if isinstance(sound, AudioError):
        return sound
    try:
        encoder.valid_tokens(len(sound.waveform))
    except AudioError as error:
        return error
    return sound
