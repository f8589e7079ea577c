"""Decode clips ahead of the encoder, in order, on threads.

Decoding and resampling let go of the interpreter lock, so threads are enough; a process pool
would copy every waveform once more and cannot be forked safely once CUDA is up. Each decodes with one
thread of torch: as many again in each of them would keep the encoder from the cores.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import torch

from featcache.audio.decode_process import DecodeProcesses
from featcache.audio.load import Decoded
from featcache.audio.mixup import decode_clip, told
from featcache.audio.recording import OpenRecordings
from featcache.errors import AudioError
from featcache.manifest import Clip
from featcache.spans import Spans

# To hand a clip to a thread takes as long as to decode a tenth of a second of WAV, and threads that decode
# such clips pass the interpreter lock round at each: so a thread gets as many as take it about so long.
_TOGETHER = 0.01  # [s]
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
            if processes is not None:
                processes.start()  # which takes seconds, once
            with spans.span("decode"):
                if processes is not None:
                    return processes.decode(clip, partners, **settings)
                with told(clip):
                    return decode_clip(clip, partners, recordings=recordings, **settings)
        except AudioError as error:
            return error

    def decode_all(group: Sequence[Clip]) -> tuple[list[Decoded | AudioError], float]:
        began = time.perf_counter()
        found = [decode(clip) for clip in group if not over.is_set()]
        return found, (time.perf_counter() - began) / len(group)

    own, recordings, over = torch.get_num_threads(), OpenRecordings(), threading.Event()
    most = max(1, min(_MOST_TOGETHER, ahead // workers))
    if any(clip.start or clip.end is not None for clip in clips):
        most = 1  # neighbours are parts of one recording, in which all threads read on together
    pool = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))
    queue: deque[tuple[Sequence[Clip], Future[tuple[list[Decoded | AudioError], float]]]] = deque()
    begun, ended, size = 0, 0, 1

    def hand_over() -> None:
        nonlocal begun
        while begun < len(clips) and (not queue or begun - ended + size <= ahead):
            fair = (len(clips) - begun) // (2 * workers)  # at the end, so that all workers end together
            group = clips[begun : begun + max(1, min(size, fair))]
            queue.append((group, pool.submit(decode_all, group)))
            begun += len(group)

    try:
        hand_over()
        while queue:
            group, future = queue.popleft()
            results, seconds = future.result()
            ended += len(group)
            size = max(1, min(most, int(_TOGETHER / max(seconds, 1e-6))))
            hand_over()
            yield from zip(group, results, strict=True)
    finally:
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)
        if processes is not None:
            processes.close()
        recordings.close()
        torch.set_num_threads(own)  # what a thread that starts later takes for its own
