"""Whole shards of a cache, filled with clips: copied from another cache, or encoded."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from statistics import median

from tqdm import tqdm

from featcache.cache import CacheWriter, TokenCache
from featcache.errors import AudioError
from featcache.extraction.audios import Audios
from featcache.extraction.batcher import Batcher
from featcache.extraction.result import Extraction
from featcache.extraction.runner import Runner
from featcache.extraction.sounds import Sound, Sounds
from featcache.extraction.storing import Item, Storing
from featcache.manifest import Clip
from featcache.spans import Spans

Place = tuple[TokenCache, int]  # a cache that holds a clip, and its row there

# Clips of ten seconds are often 10.001 s long: what is cut of them is no loss worth a word.
CUT_SLACK = 0.01  # of the clip length


class Shards:
    """Writes shards one after another.

    Args:
        progress: show a bar

    Attributes:
        failed: clips of the shard that fills that have failed: key (hex) -> id and reason
    """

    def __init__(
        self,
        writer: CacheWriter,
        runner: Runner,
        sounds: Sounds,
        result: Extraction,
        *,
        batch_size: int,
        spans: Spans,
        progress: bool,
    ) -> None:
        self.failed: dict[str, dict[str, str]] = {}
        self._writer, self._runner, self._sounds, self._result = writer, runner, sounds, result
        self._storing = Storing(writer, runner.transfer.dtype_for(writer.layout.store))
        self._batch_size, self._spans, self._progress = batch_size, spans, progress
        self._title = "extract" if result.writer == "0/1" else f"extract, writer {result.writer}"
        self._cut: list[float] = []  # [s] what each encoded clip lost at its end

    def write(
        self, shards: Mapping[int, Sequence[bytes]], audios: Audios, copies: Mapping[bytes, Place]
    ) -> None:
        """Write shards of clips that can be decoded.

        Args:
            shards: the keys of each, in order
            copies: of clips that another cache holds, by key
        """
        new = {shard: [key for key in keys if key not in copies] for shard, keys in shards.items()}
        decoded = self._sounds.of(audios.clips[key] for keys in new.values() for key in keys)
        batcher = Batcher(
            self._runner, self._batch_size, self._storing, dtype=self._storing.dtype, spans=self._spans
        )
        with tqdm(
            total=sum(map(len, shards.values())), unit="clip", desc=self._title,
            disable=None if self._progress else True,
        ) as bar:  # fmt: skip
            for shard, keys in shards.items():
                sounds = islice(decoded, len(new[shard]))
                if self._writer.is_finished(shard):
                    self._result.present += len(keys)
                    audios.reached(audios.clips[key] for key in keys)
                    for _ in sounds:  # they were decoded ahead, and the next shard's come after them
                        pass
                    bar.update(len(keys))
                    continue
                self.failed = {}
                self._writer.begin_shard(shard)
                self._copy([key for key in keys if key in copies], audios, copies)
                bar.update(len(keys) - len(new[shard]))
                for key, (clip, sound) in zip(new[shard], sounds, strict=True):
                    bar.update()
                    audios.reached([clip])
                    if key in audios.unread and not isinstance(sound, AudioError):
                        sound = AudioError("it could not be read when the run began; run the command again")
                    if reason := self._push(batcher, key, clip, sound):
                        self.failed[key.hex()] = {"id": clip.id, "reason": reason}
                # No batch reaches over the end of a shard: whoever writes it, and whenever, makes the same
                # batches, and so the same bytes.
                batcher.flush()
                self._storing.let_go()
                self._result.encoded = self._storing.count
                self._writer.end_shard(self.failed)

    def cut_short(self) -> None:
        """Keep what the unfinished shard holds; the clips that it lacks are planned anew by the next run."""
        self._storing.let_go()
        self._writer.cut_shard(self.failed)

    def count_cut(self) -> None:
        """Say in the result how many clips were longer than the encoder takes, and by how much."""
        slack = CUT_SLACK * self._runner.encoder.clip_seconds
        cut = [seconds for seconds in self._cut if seconds > slack]
        if cut:
            self._result.cut = len(cut)
            self._result.cut_median, self._result.cut_largest = median(cut), max(cut)

    def _copy(self, keys: Iterable[bytes], audios: Audios, copies: Mapping[bytes, Place]) -> None:
        for key in keys:
            clip = audios.clips[key]
            self._writer.add_stored(clip.id, key, *copies[key])
            audios.reached([clip])
            self._result.reused += 1

    def _push(self, batcher: Batcher[Item], key: bytes, clip: Clip, sound: Sound) -> str | None:
        """Have a clip encoded; the reason where that cannot be."""
        if isinstance(sound, AudioError):
            self._result.failed[clip.id] = str(sound)
            return str(sound)
        encoder = self._runner.encoder
        decoded_seconds = len(sound.waveform) / encoder.sample_rate
        self._cut.append(sound.cut_seconds + max(0.0, decoded_seconds - encoder.clip_seconds))
        batcher.push(Item(clip.id, key), sound.waveform)
        return None
