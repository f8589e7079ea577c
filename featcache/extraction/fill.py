"""Fill an open cache with the clips it lacks: present, copied from another cache, or encoded."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from statistics import median

from torch import Tensor
from tqdm import tqdm

from featcache.cache import CacheWriter, TokenCache
from featcache.cache.format.layout import KEY_BYTES
from featcache.errors import AudioError, FeatcacheError, Interrupted
from featcache.extraction.batcher import Batcher, tokens_of
from featcache.extraction.canaries import check_canaries
from featcache.extraction.result import Extraction
from featcache.extraction.runner import Runner
from featcache.extraction.share import Share
from featcache.extraction.sounds import Sound, Sounds
from featcache.extraction.storing import Item, Storing
from featcache.manifest import Clip
from featcache.records import record_failed
from featcache.spans import Spans

_log = logging.getLogger(__name__)

# Clips of ten seconds are often 10.001 s long: what is cut of them is no loss worth a word.
CUT_SLACK = 0.01  # of the clip length


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
        share: Share,
        accept_truncated: bool = False,
        timeout: float | None = None,
        spans: Spans,
        progress: bool = False,
    ) -> None:
        writer.count_time(spans)
        self._spans = spans
        self._sounds = Sounds(
            runner.encoder, workers=workers, ahead=2 * batch_size, accept_truncated=accept_truncated,
            timeout=timeout, spans=spans,
        )  # fmt: skip
        self._share = share
        self._writer, self._runner, self._result = writer, runner, result
        self._storing = Storing(writer, runner.transfer.dtype_for(writer.layout.store))
        self._batch_size = batch_size
        self._progress = progress
        self._cut: list[float] = []  # [s] what each encoded clip lost at its end
        self._waiting: set[str] = set()  # clips that this run has not come to yet
        self._shard_failed: dict[str, dict[str, str]] = {}  # of the shard that fills: key (hex) -> id, reason

    def fill(
        self,
        clips: Sequence[Clip],
        keys: Sequence[bytes | None],
        reuse: Sequence[TokenCache],
        *,
        split: Iterable[str] = (),
        elsewhere: Set[bytes] = frozenset(),
    ) -> None:
        """Bring every clip into the cache.

        Args:
            keys: content key of each clip, None where its file cannot be read
            split: ids of clips that are windows now: what is listed of them no longer counts
            elsewhere: keys of clips that are stored in another place, and count as present

        Raises:
            Interrupted: Ctrl-C; all batches that were encoded by then stay.
        """
        self._result.complete = False
        self._clips: dict[bytes, Clip] = {}
        self._ids: dict[bytes, list[str]] = {}  # all of one audio
        self._sounds.partners = {clip.id: clip for clip in clips}
        for clip, key in zip(clips, keys, strict=True):
            own = _unreadable_key(clip) if key is None else key
            self._clips.setdefault(own, clip)
            self._ids.setdefault(own, []).append(clip.id)
        self._unread = {_unreadable_key(clip) for clip, key in zip(clips, keys, strict=True) if key is None}
        self._clips = {key: clip for key, clip in self._clips.items() if key not in elsewhere}
        pending = dict(self._clips)
        self._waiting.update(clip.id for clip in pending.values())
        expected = len(self._writer.done_keys.union(self._clips))
        self._writer.annotate(clips_expected=expected)
        try:
            self._skip_present(pending, len(clips))
            self._find_copies(reuse, pending)
            self._take_sample(pending)
            self._write(self._mine(pending), pending)
            self._take_over(pending)
            self._writer.refresh()
            self._result.complete = not any(map(self._writer.lacks, self._clips))
        except KeyboardInterrupt:
            self._cut_short()
            raise Interrupted(
                f"stopped; {len(self._writer.done_keys)} clips are stored in {self._result.cache}: "
                "run the same command again to go on"
            ) from None
        finally:
            self._count_cut()
            self._list_failed({*split, *(clip.id for clip in clips)})

    def _cut_short(self) -> None:
        """Keep what the unfinished shard holds; the clips that it lacks are planned anew by the next run."""
        try:
            self._storing.let_go()
            self._writer.cut_shard(self._shard_failed)
        except FeatcacheError as error:  # a full disk, say: the shards before it stay
            _log.info("the unfinished shard is dropped: %s", error)
        self._writer.abort()

    def _list_failed(self, ids: set[str]) -> None:
        """List the clips that could not be decoded; of several writers the last one does."""
        noted, tried = self._writer.failed, dict(self._result.failed)
        self._result.failed.clear()
        for key, clip in self._clips.items():
            if key not in self._writer.done_keys and (clip.id in tried or key.hex() in noted):
                reason = tried.get(clip.id) or noted[key.hex()]["reason"]
                self._result.failed |= dict.fromkeys(self._ids[key], reason)
                self._waiting.discard(clip.id)
        if self._share.count == 1:  # what an interrupted run did not come to keeps its entry
            record_failed(self._result.cache, ids - self._waiting, self._result.failed)
        elif self._result.complete:
            record_failed(self._result.cache, ids, self._result.failed)

    def _mine(self, pending: Mapping[bytes, Clip]) -> dict[int, list[bytes]]:
        """The unfinished shards that are this writer's, with the keys of their clips."""
        unfinished = self._writer.plan(pending)
        if not any(key in pending for own in unfinished.values() for key in own):
            # All is done, but for clips that failed: they may have been mended, or be taken as they are now.
            unfinished = self._writer.plan(pending, again=self._decodable(pending))
        return {
            shard: own
            for shard, own in unfinished.items()
            if shard % self._share.count == self._share.rank and any(key in pending for key in own)
        }

    def _take_over(self, pending: Mapping[bytes, Clip]) -> None:
        """Write shards of slower writers, from their ends, as long as there are some that nobody has begun.

        Two may still choose one at the same time: then one of them is dropped, as always.
        """
        tried: set[int] = set()
        while self._share.takeover:
            self._writer.refresh()
            free = [
                (shard, own)
                for shard, own in self._writer.plan(pending).items()
                if shard not in tried
                and not self._writer.is_begun(shard)
                and any(key in pending for key in own)
            ]
            if not free:
                return
            # Writers that are idle at once begin at different ones.
            shard, own = free[-1 - self._share.rank % len(free)]
            tried.add(shard)
            self._write({shard: own}, pending)

    def _decodable(self, pending: Mapping[bytes, Clip]) -> list[bytes]:
        return [
            key
            for key, (_, sound) in zip(pending, self._sounds.of(pending.values()), strict=True)
            if not isinstance(sound, AudioError) and key not in self._unread
        ]

    def _count_cut(self) -> None:
        slack = CUT_SLACK * self._runner.encoder.clip_seconds
        cut = [seconds for seconds in self._cut if seconds > slack]
        if cut:
            self._result.cut = len(cut)
            self._result.cut_median, self._result.cut_largest = median(cut), max(cut)

    def _skip_present(self, pending: dict[bytes, Clip], num_clips: int) -> None:
        done = self._writer.done_keys
        present = {key: pending.pop(key) for key in list(pending) if key in done}
        self._result.present = num_clips - len(pending)
        self._waiting.difference_update(clip.id for clip in present.values())
        if present:
            self._result.canaries = check_canaries(
                TokenCache.open(self._result.cache), present, self._runner, self._sounds.partners
            )

    def _find_copies(self, others: Sequence[TokenCache], pending: Mapping[bytes, Clip]) -> None:
        """Where other caches hold what is wanted; the same canaries guard them."""
        self._copies: dict[bytes, tuple[TokenCache, int]] = {}
        for other in others:
            self._writer.check_same(other)
            keys = [key for key in pending if key not in self._copies]
            rows = {key: row for key, row in zip(keys, other.rows_of(keys), strict=True) if row is not None}
            wanted = {key: pending[key] for key in rows}
            self._result.canaries += check_canaries(other, wanted, self._runner, self._sounds.partners)
            self._copies |= {key: (other, row) for key, row in rows.items()}

    def _take_sample(self, pending: Mapping[bytes, Clip]) -> None:
        """Encode the first few clips for the scales of channels, where the cache needs some and has none.

        Every writer takes the same clips, whichever shards are its own.
        """
        sounds: list[Tensor] = []
        for _, sound in self._sounds.of(pending.values() if self._writer.needs_sample else ()):
            if not isinstance(sound, AudioError):
                sounds.append(sound.waveform)
            if len(sounds) == self._writer.needs_sample:
                break
        if sounds:
            sample = tokens_of(self._runner, sounds)
            layers = self._runner.layers
            self._writer.take_sample(
                {layer: [clip.tokens[layer][: clip.valid] for clip in sample] for layer in layers}
            )

    def _write(self, shards: Mapping[int, Sequence[bytes]], pending: Mapping[bytes, Clip]) -> None:
        """Write whole shards, each with the clips that are wanted and can be decoded."""
        own = {shard: [key for key in keys if key in pending] for shard, keys in shards.items()}
        new = {shard: [key for key in keys if key not in self._copies] for shard, keys in own.items()}
        decoded = self._sounds.of(pending[key] for keys in new.values() for key in keys)
        batcher = Batcher(
            self._runner, self._batch_size, self._storing, dtype=self._storing.dtype, spans=self._spans
        )
        with tqdm(
            total=sum(map(len, own.values())), unit="clip", desc="extract",
            disable=None if self._progress else True,
        ) as bar:  # fmt: skip
            for shard, keys in own.items():
                sounds = islice(decoded, len(new[shard]))
                if self._writer.is_finished(shard):
                    self._result.present += len(keys)
                    self._waiting.difference_update(pending[key].id for key in keys)
                    bar.update(len(keys) + 0 * len(list(sounds)))
                    continue
                self._shard_failed = {}
                self._writer.begin_shard(shard)
                self._copy([key for key in keys if key in self._copies], pending)
                bar.update(len(keys) - len(new[shard]))
                for key, (clip, sound) in zip(new[shard], sounds, strict=True):
                    bar.update()
                    if reason := self._push(batcher, key, clip, sound):
                        self._shard_failed[key.hex()] = {"id": clip.id, "reason": reason}
                # No batch reaches over the end of a shard: whoever writes it, and whenever, makes the same
                # batches, and so the same bytes.
                batcher.flush()
                self._storing.let_go()
                self._result.encoded = self._storing.count
                self._writer.end_shard(self._shard_failed)

    def _copy(self, keys: Iterable[bytes], pending: Mapping[bytes, Clip]) -> None:
        for key in keys:
            self._writer.add_stored(pending[key].id, key, *self._copies[key])
            self._waiting.discard(pending[key].id)
            self._result.reused += 1

    def _push(self, batcher: Batcher[Item], key: bytes, clip: Clip, sound: Sound) -> str | None:
        """Have a clip encoded; the reason where that cannot be."""
        self._waiting.discard(clip.id)
        if isinstance(sound, AudioError) or key in self._unread:
            self._result.failed[clip.id] = str(sound)
            return str(sound)
        encoder = self._runner.encoder
        decoded_seconds = len(sound.waveform) / encoder.sample_rate
        self._cut.append(sound.cut_seconds + max(0.0, decoded_seconds - encoder.clip_seconds))
        batcher.push(Item(clip.id, key), sound.waveform)
        return None


def _unreadable_key(clip: Clip) -> bytes:
    """What stands for the content of a file that cannot be read."""
    return hashlib.blake2b(f"unreadable {clip.id}".encode(), digest_size=KEY_BYTES).digest()
