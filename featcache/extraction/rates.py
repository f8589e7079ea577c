"""How fast this machine decodes, encodes and stores a few of the clips: each stage alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from featcache.audio.decode_ahead import decode_ahead
from featcache.audio.load import Decoded
from featcache.cache import CacheLayout, CacheWriter
from featcache.encoders.base import decode_seconds
from featcache.errors import AudioError
from featcache.extraction.batcher import ClipTokens, tokens_of
from featcache.extraction.runner import Runner
from featcache.machine.disk import PROBE_BYTES, free_bytes, nearest_folder, read_rate
from featcache.manifest import Clip
from featcache.spans import Spans

SAMPLE = 16  # clips
WRITE_SECONDS = 0.5  # of writing: small shards take longer than 64 MB should


@dataclass(frozen=True, kw_only=True)
class Rates:
    """[clips/s] of each stage alone, on a sample of the clips that are to be done."""

    decode: float  # by all workers
    encode: float  # frontend, encoder, copy to the host
    write: float  # into a cache beside the one planned, until it is durable
    read: float  # [bytes/s] of that cache from disk
    audio_seconds: float  # mean of what is encoded of a clip
    clips: int  # that were measured


def measure(
    clips: Sequence[Clip],
    partners: Mapping[str, Clip],
    runner: Runner,
    layout: CacheLayout,
    *,
    beside: Path,
    workers: int,
    accept_truncated: bool = False,
    timeout: float | None = None,
    together: int = 1,
) -> Rates | None:
    """Measure up to 16 of ``clips``, spread over all of them; None where none can be decoded.

    Args:
        partners: clips by id, for variants that others lie over
        beside: the planned cache; a folder next to it is filled for half a second, or with 64 MB or a tenth
            of the free space, whichever is least, and removed
        workers: decoding threads
        timeout: [s] after which a clip is given up
        together: clips that are encoded at once, at least, some of them again: what is compiled takes full
            batches

    Raises:
        InputError: the storage dtype cannot hold these tokens.
        CacheError: nothing can be written there.
    """
    places = {round(index * (len(clips) - 1) / (SAMPLE - 1)) for index in range(SAMPLE)} if clips else set()
    rate = runner.encoder.sample_rate
    spans = Spans()
    decoded = list(
        decode_ahead(
            [clips[place] for place in sorted(places)],
            sample_rate=rate, max_seconds=decode_seconds(runner.encoder), workers=workers, ahead=SAMPLE,
            accept_truncated=accept_truncated, partners=partners, timeout=timeout, spans=spans,
        )
    )  # fmt: skip
    decode = spans.seconds["decode"] / workers  # threads and processes take long to start, and once
    sounds = [(clip, sound) for clip, sound in decoded if _encodable(sound, runner)]
    waveforms = [sound.waveform for _, sound in sounds if isinstance(sound, Decoded)]
    if not waveforms:
        return None
    tokens_of(runner, waveforms[:1])  # first calls allocate and read weights
    batch = list(islice(cycle(waveforms), max(together, len(waveforms))))
    began = time.perf_counter()
    encoded = tokens_of(runner, batch)
    encode = time.perf_counter() - began
    write, read = _stored(
        [clip.id for clip, _ in sounds], encoded[: len(sounds)], layout, nearest_folder(beside.parent)
    )
    return Rates(
        decode=len(decoded) / decode,
        encode=len(encoded) / encode,
        write=write,
        read=read,
        audio_seconds=sum(map(len, waveforms)) / rate / len(waveforms),
        clips=len(waveforms),
    )


def _encodable(sound: Decoded | AudioError, runner: Runner) -> bool:
    if isinstance(sound, AudioError):
        return False
    try:
        runner.encoder.valid_tokens(len(sound.waveform))
    except AudioError:
        return False
    return True


def _stored(
    ids: Sequence[str], encoded: Sequence[ClipTokens], layout: CacheLayout, folder: Path
) -> tuple[float, float]:
    """[clips/s] of writing these clips again and again, [bytes/s] of reading them back."""
    most = max(len(encoded), min(PROBE_BYTES, free_bytes(folder) // 10) // layout.clip_bytes)
    with TemporaryDirectory(prefix=".featcache-plan-", dir=folder) as name:
        cache = Path(name) / "sample.zarr"
        _written(Path(name) / "first.zarr", ids, encoded, layout, 1)  # the first call compiles
        began = time.perf_counter()
        count = _written(cache, ids, encoded, layout, most)
        write = count / max(time.perf_counter() - began, 1e-9)
        return write, read_rate(file for file in (cache / "tokens").rglob("c.*") if file.is_file())


def _written(
    cache: Path, ids: Sequence[str], encoded: Sequence[ClipTokens], layout: CacheLayout, most: int
) -> int:
    """How many clips were written: all, and then again until there are ``most`` or half a second is over."""
    count, began = 0, time.perf_counter()
    with CacheWriter.create_or_open(cache, layout) as writer:
        while count < min(most, len(encoded)) or (
            count < most and time.perf_counter() - began < WRITE_SECONDS
        ):
            clip = encoded[count % len(encoded)]
            writer.add(ids[count % len(ids)], count.to_bytes(16, "big"), clip.tokens, clip.cls, clip.valid)
            count += 1
    return count
