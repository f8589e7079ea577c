"""Fill an open cache with the clips it lacks: present, copied from another cache, or encoded."""

import logging
from collections.abc import Iterable, Mapping, Sequence, Set

from torch import Tensor

from featcache.cache import CacheWriter, TokenCache
from featcache.errors import AudioError, FeatcacheError, Interrupted
from featcache.extraction.audios import Audios
from featcache.extraction.batcher import tokens_of
from featcache.extraction.canaries import check_canaries
from featcache.extraction.result import Extraction
from featcache.extraction.runner import Runner
from featcache.extraction.shards import Place, Shards
from featcache.extraction.share import Share
from featcache.extraction.sounds import Sounds
from featcache.manifest import Clip
from featcache.records import record_failed
from featcache.spans import Spans

_log = logging.getLogger(__name__)
Pending = Mapping[bytes, Clip]  # the clips that the cache lacked when the run began, by key


class Filler:
    """One run's work on one cache."""

    def __init__(
        self,
        writer: CacheWriter,
        runner: Runner,
        result: Extraction,
        *,
        batch_size: int,
        workers: int,
        share: Share,
        accept_truncated: bool = False,
        timeout: float | None = None,
        spans: Spans,
        progress: bool = False,
    ) -> None:
        writer.count_time(spans)
        self._sounds = Sounds(
            runner.encoder, workers=workers, ahead=2 * batch_size, accept_truncated=accept_truncated,
            timeout=timeout, spans=spans,
        )  # fmt: skip
        self._shards = Shards(
            writer, runner, self._sounds, result, batch_size=batch_size, spans=spans, progress=progress
        )
        self._share = share
        self._writer, self._runner, self._result = writer, runner, result

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
        self._sounds.partners = {clip.id: clip for clip in clips}
        self._audios = Audios(clips, keys, elsewhere)
        self._writer.annotate(clips_expected=len(self._writer.done_keys.union(self._audios.clips)))
        try:
            pending = self._lacking(len(clips))
            self._copies = self._find_copies(reuse, pending)
            self._take_sample(pending)
            self._write(self._mine(pending), pending)
            self._take_over(pending)
            self._writer.refresh()
            self._result.complete = not any(map(self._writer.lacks, self._audios.clips))
        except KeyboardInterrupt:
            self._cut_short()
            raise Interrupted(
                f"stopped; {len(self._writer.done_keys)} clips are stored in {self._result.cache}: "
                "run the same command again to go on"
            ) from None
        finally:
            self._shards.count_cut()
            self._list_failed({*split, *(clip.id for clip in clips)})

    def _lacking(self, num_clips: int) -> Pending:
        """The clips that the cache does not hold; a few of those that it holds are encoded again."""
        done, wanted = self._writer.done_keys, self._audios.clips
        present = {key: clip for key, clip in wanted.items() if key in done}
        self._result.present = num_clips - (len(wanted) - len(present))
        self._audios.reached(present.values())
        if present:
            self._result.canaries = check_canaries(
                TokenCache.open(self._result.cache), present, self._runner, self._sounds.partners
            )
        return {key: clip for key, clip in wanted.items() if key not in present}

    def _find_copies(self, others: Sequence[TokenCache], pending: Pending) -> dict[bytes, Place]:
        """Where other caches hold what is wanted; the same canaries guard them."""
        copies: dict[bytes, Place] = {}
        for other in others:
            self._writer.check_same(other)
            keys = [key for key in pending if key not in copies]
            rows = {key: row for key, row in zip(keys, other.rows_of(keys), strict=True) if row is not None}
            wanted = {key: pending[key] for key in rows}
            self._result.canaries += check_canaries(other, wanted, self._runner, self._sounds.partners)
            copies |= {key: (other, row) for key, row in rows.items()}
        return copies

    def _take_sample(self, pending: Pending) -> None:
        """Encode the first few clips for the scales of channels, where the cache needs some and has none.

        Every writer takes the same clips, whichever shards are its own.
        """
        sounds: list[Tensor] = []
        for _, sound in self._sounds.of(pending.values() if self._writer.first.wanted else ()):
            if not isinstance(sound, AudioError):
                sounds.append(sound.waveform)
            if len(sounds) == self._writer.first.wanted:
                break
        if sounds:
            sample = tokens_of(self._runner, sounds)
            layers = self._runner.layers
            self._writer.first.choose(
                {layer: [clip.tokens[layer][: clip.valid] for clip in sample] for layer in layers}
            )

    def _mine(self, pending: Pending) -> dict[int, list[bytes]]:
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

    def _take_over(self, pending: Pending) -> None:
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

    def _decodable(self, pending: Pending) -> list[bytes]:
        return [
            key
            for key, (_, sound) in zip(pending, self._sounds.of(pending.values()), strict=True)
            if not isinstance(sound, AudioError) and key not in self._audios.unread
        ]

    def _write(self, shards: Mapping[int, Sequence[bytes]], pending: Pending) -> None:
        """Write whole shards, each with the clips that are wanted."""
        wanted = {shard: [key for key in keys if key in pending] for shard, keys in shards.items()}
        self._shards.write(wanted, self._audios, self._copies)

    def _cut_short(self) -> None:
        try:
            self._shards.cut_short()
        except FeatcacheError as error:  # a full disk, say: the shards before it stay
            _log.info("the unfinished shard is dropped: %s", error)
        self._writer.abort()

    def _list_failed(self, ids: set[str]) -> None:
        """List the clips that could not be decoded; of several writers the last one does."""
        tried = self._result.failed
        failed = self._audios.failures(self._writer.done_keys, tried, self._writer.failed)
        self._result.failed = failed
        self._result.present -= len(failed.keys() - {clip.id for clip in self._audios.clips.values()})
        if self._share.count == 1:  # what an interrupted run did not come to keeps its entry
            record_failed(self._result.cache, self._audios.not_waiting(ids), failed)
        elif self._result.complete:
            record_failed(self._result.cache, ids, failed)
