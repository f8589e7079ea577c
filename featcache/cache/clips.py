"""From the number of a clip to the shard and slot that hold it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Place = tuple[int, int]  # (shard, slot)


class ClipIndex:
    """The finished clips in shard order; holes at the end of a partly filled shard are skipped."""

    def __init__(self, counts: Mapping[int, int]) -> None:
        self.shards = sorted(counts)
        self.counts = [counts[shard] for shard in self.shards]
        self._numbers = np.array(self.shards, dtype=np.int64)
        self._ends = np.cumsum(self.counts, dtype=np.int64)  # after the last clip of each shard

    def __len__(self) -> int:
        return int(self._ends[-1]) if self.shards else 0

    def check(self, rows: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """The rows as an array.

        Raises:
            IndexError: a row is not in 0..len-1.
        """
        clips = np.asarray(rows, dtype=np.int64).reshape(-1)
        if clips.size and (clips.min() < 0 or clips.max() >= len(self)):
            raise IndexError(f"rows {clips.min()}..{clips.max()} of a cache with {len(self)} clips")
        return clips

    def places(self, rows: Sequence[int]) -> list[Place]:
        """Where these clips are.

        Raises:
            IndexError: a row is not in 0..len-1.
        """
        clips = self.check(rows)
        position = np.searchsorted(self._ends, clips, side="right")
        starts = self._ends[position] - np.asarray(self.counts, dtype=np.int64)[position]
        return list(zip(self._numbers[position].tolist(), (clips - starts).tolist(), strict=True))
