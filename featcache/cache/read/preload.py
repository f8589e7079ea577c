"""Reading a cache into memory once, for caches that are small and disks that are slow."""

import os
from collections.abc import Sequence

import numpy as np

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.layout import ArraySpec
from featcache.cache.read.access import PreadAccess
from featcache.cache.read.columns import ClipIndex
from featcache.cache.read.shard_files import ShardFiles
from featcache.errors import InputError

_CLIPS_AT_ONCE = 256


class PreloadAccess:
    """Whole arrays in memory, uncompressed, each loaded when first asked for."""

    def __init__(self, files: ShardFiles, clips: ClipIndex) -> None:
        self._disk = PreadAccess(files, clips)
        self._clips = clips
        self._arrays: dict[str, Bytes] = {}

    def read(self, spec: ArraySpec, rows: Sequence[int], out: Bytes) -> None:
        """As in `Access`."""
        self._clips.check(rows)
        array = self._array(spec)
        for i, row in enumerate(rows):
            np.copyto(out[i], array[row])

    def view(self, spec: ArraySpec, row: int) -> Bytes:
        """As in `Access`."""
        self._clips.check([row])
        return self._array(spec)[row : row + 1].reshape(-1)

    def prefetch(self, spec: ArraySpec, rows: Sequence[int]) -> None:
        """Nothing to do."""

    def _array(self, spec: ArraySpec) -> Bytes:
        if spec.name not in self._arrays:
            self._arrays[spec.name] = self._load(spec)
        return self._arrays[spec.name]

    def _load(self, spec: ArraySpec) -> Bytes:
        needed = len(self._clips) * spec.row_bytes
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > free:
            raise InputError(
                f"preloading {spec.name} takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory "
                "are free; use the reader 'map'"
            )
        array = np.empty((len(self._clips), spec.row_bytes), dtype=np.uint8)
        for start in range(0, len(self._clips), _CLIPS_AT_ONCE):
            rows = range(start, min(start + _CLIPS_AT_ONCE, len(self._clips)))
            self._disk.read(spec, rows, array[start : rows.stop])
        array.flags.writeable = False
        return array
