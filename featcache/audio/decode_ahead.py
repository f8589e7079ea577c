"""Decode clips ahead of the encoder, in order, on threads.

Decoding and resampling let go of the interpreter lock, so threads are enough; a process pool
would copy every waveform once more and cannot be forked safely once CUDA is up. Each decodes with one
thread of torch: as many again in each of them would keep the encoder from the cores.
"""

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

    own, recordings = torch.get_num_threads(), OpenRecordings()
    pool = ThreadPoolExecutor(workers, "decode", initializer=torch.set_num_threads, initargs=(1,))
    try:
        rest = iter(clips)
        queue: deque[tuple[Clip, Future[Decoded | AudioError]]] = deque(
            (clip, pool.submit(decode, clip)) for clip in islice(rest, ahead + 1)
        )
        while queue:
            clip, future = queue.popleft()
            result = future.result()
            queue.extend((following, pool.submit(decode, following)) for following in islice(rest, 1))
            yield clip, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if processes is not None:
            processes.close()
        recordings.close()
        torch.set_num_threads(own)  # what a thread that starts later takes for its own
