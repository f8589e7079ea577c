"""Decode clips ahead of the encoder, in order, on threads.

Decoding and resampling let go of the interpreter lock, so threads are enough; a process pool
would copy every waveform once more and cannot be forked safely once CUDA is up. Each decodes with one
thread of torch: as many again in each of them would keep the encoder from the cores.
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import MappingProxyType
from typing import Any

import torch

from featcache.audio.decode_process import DecodeProcesses
from featcache.audio.load import Decoded
from featcache.audio.mixup import decode_clip
from featcache.audio.recording import OpenRecordings
from featcache.errors import AudioError
from featcache.manifest import Clip
from featcache.spans import Spans

# Clips that a thread is handed at once, at most: to hand over one takes as long as to decode a tenth of a
# second of WAV. With as many as a batch has, one thread decodes short clips while the others sleep, and they
# do not pass the interpreter lock round.
_MOST_TOGETHER = 32


def decode_ahead(
    clips: Sequence[Clip],
    *,
    sample_rate: int,
    max_seconds: float,
    workers: int,
    ahead: int,
    accept_truncated: bool = False,
    partners: Mapping[str, Clip] = MappingProxyType({}),
    timeout: float | None = None,
    spans: Spans | None = None,
) -> Iterator[tuple[Clip, Decoded | AudioError]]:
    """Yield each clip, in order, with its waveform or the reason why it has none.

    Args:
        workers: threads
        ahead: clips decoded before they are asked for
        partners: clips by id, for variants that others lie over
        timeout: [s] after which a clip is given up; it is then decoded in a process that can be stopped
        spans: counts the time of decoding
    """
    spans = spans or Spans()
    settings: dict[str, Any] = {
        "sample_rate": sample_rate, "max_seconds": max_seconds, "accept_truncated": accept_truncated
    }  # fmt: skip
    processes = None if timeout is None else DecodeProcesses(timeout)

    def decode(clip: Clip) -> Decoded | AudioError:
        try:
            with spans.span("decode"):
                if processes is not None:
                    return processes.decode(clip, partners, **settings)
                return decode_clip(clip, partners, recordings=recordings, **settings)
        except AudioError as error:
            return error

    def decode_all(group: Sequence[Clip]) -> list[Decoded | AudioError]:
        return [decode(clip) for clip in group if not over.is_set()]

    own, recordings, over = torch.get_num_threads(), OpenRecordings(), threading.Event()
    most = max(1, min(_MOST_TOGETHER, ahead // workers))
    if any(clip.start or clip.end is not None for clip in clips):
        most = 1  # neighbours are parts of one recording, in which all threads read on together
    groups = _groups(clips, most, workers)
    pool = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))
    try:
        queue: deque[tuple[Sequence[Clip], Future[list[Decoded | AudioError]]]] = deque(
            (group, pool.submit(decode_all, group)) for group in islice(groups, max(workers, ahead // most))
        )
        while queue:
            group, future = queue.popleft()
            results = future.result()
            queue.extend((following, pool.submit(decode_all, following)) for following in islice(groups, 1))
            yield from zip(group, results, strict=True)
    finally:
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)
        if processes is not None:
            processes.close()
        recordings.close()
        torch.set_num_threads(own)  # what a thread that starts later takes for its own


def _groups(clips: Sequence[Clip], most: int, workers: int) -> Iterator[Sequence[Clip]]:
    """Neighbours together; fewer towards the end, so that all workers end at the same time."""
    start = 0
    while left := len(clips) - start:
        size = max(1, min(most, left // (2 * workers)))
        yield clips[start : start + size]
        start += size
