"""Choosing how a cache is read: as told, or by a short measurement of the file system."""

import os
import time
from collections.abc import Callable

import numpy as np

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.layout import ArraySpec
from featcache.cache.read.access import Access, MapAccess, PreadAccess
from featcache.cache.read.columns import ClipIndex
from featcache.cache.read.preload import PreloadAccess
from featcache.cache.read.shard_files import ShardFiles
from featcache.errors import CacheError, unknown

READERS: dict[str, Callable[[ShardFiles, ClipIndex], Access]] = {
    "map": MapAccess,
    "pread": PreadAccess,
    "preload": PreloadAccess,
}

_VARIABLE = "FEATCACHE_READER"
_SMALL = 256 * 2**20  # [bytes] a cache below this is in memory after one pass: nothing to measure
_CLIPS = 8  # per turn
_TURNS = 2  # of each reader
_BUDGET = 0.1  # [s] no turn starts after it
_CLEARLY = 1.5  # mapped reads cost least once pages are in memory, so only a clear win counts


def access_for(reader: str, files: ShardFiles, clips: ClipIndex, spec: ArraySpec) -> tuple[str, Access]:
    """The reader of this name, ready to read; "auto" is resolved.

    Raises:
        InputError: no such reader.
    """
    if reader == "auto":
        reader = os.environ.get(_VARIABLE) or "auto"
    if reader == "auto":
        reader = measured(files, clips, spec)
    if reader not in READERS:
        raise unknown("reader", reader, ["auto", *READERS])
    return reader, READERS[reader](files, clips)


def measured(files: ShardFiles, clips: ClipIndex, spec: ArraySpec) -> str:
    """ "map", or "pread" where that is clearly faster on clips that neither has read before."""
    count = 2 * _TURNS * _CLIPS
    if len(clips) * spec.row_bytes < _SMALL or len(clips) < count:
        return "map"
    rows = np.random.default_rng().choice(len(clips), count, replace=False).reshape(_TURNS, 2, _CLIPS)
    spent, done = {"map": 0.0, "pread": 0.0}, 0
    out = np.zeros((_CLIPS, spec.row_bytes), dtype=np.uint8)
    start = time.perf_counter()
    try:
        while done < _TURNS and (done == 0 or time.perf_counter() - start < _BUDGET):
            for name, some in zip(spent, rows[done], strict=True):
                spent[name] += _seconds(READERS[name](files, clips), spec, some.tolist(), out)
            done += 1
    except CacheError:  # a damaged shard: whoever reads it is told so
        return "map"
    return "pread" if spent["map"] > _CLEARLY * spent["pread"] else "map"


def _seconds(access: Access, spec: ArraySpec, rows: list[int], out: Bytes) -> float:
    start = time.perf_counter()
    access.read(spec, rows, out)
    return time.perf_counter() - start
