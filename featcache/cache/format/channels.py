"""Channels of unequal size: one scale for each, what a storage dtype loses of each, and how they are spread.

Frozen encoders give some channels hundreds of times the size of the others. With one scale a token, int8 and
int4 then store every other channel as zero, while the cosine of the whole token hardly changes.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from featcache.cache.format.layout import CacheLayout

Array = np.ndarray[Any, Any]

SPREAD = 4.0  # times the median channel's largest magnitude: beyond it a channel is an outlier
_SMALLEST = 1 / 16  # of the median: a channel that was silent in the sample costs four bits when it speaks
SAMPLE_CLIPS = 8  # that are looked at before the first is stored
_LOST = 0.5  # of a channel's variance: with so much error the channel is flattened
MOST_FLATTENED = 0.01  # of the channels


def sample_clips(layout: CacheLayout) -> int:
    """Clips that are looked at before the first is stored: eight, or a shard's where that is fewer."""
    return min(SAMPLE_CLIPS, layout.shard_rows)


def outliers(largest: Array) -> Array:
    """Numbers of the channels whose largest magnitude (D,) is over four times the median one.

    >>> outliers(np.array([1.0, 2.0, 300.0, 1.5])).tolist()
    [2]
    """
    return np.flatnonzero(largest > SPREAD * _median(largest))


def channel_scale(largest: Array) -> Array:
    """Scales (D,) float32 that bring channels of these largest magnitudes (D,) to about one size.

    All ones where no channel is an outlier: one scale a token then loses little, and heads that see
    directions alone can read the stored integers.
    """
    if not len(outliers(largest)):
        return np.ones(len(largest), dtype=np.float32)
    median = _median(largest)
    scale: Array = (np.maximum(largest, _SMALLEST * median) / median).astype(np.float32)
    return scale


def channel_errors(tokens: Array, stored: Array) -> Array:
    """The root mean square error of each channel, as a fraction of its standard deviation: (D,).

    Channels that do not vary have none.

    Shape:
        - tokens, stored: (n, D)
    """
    exact = tokens.astype(np.float64)
    sd = exact.std(axis=0)
    error = np.sqrt(np.square(stored - exact).mean(axis=0))
    errors: Array = np.divide(error, sd, out=np.zeros_like(sd), where=sd > 0)
    return errors


def flattened(errors: Array) -> float:
    """The fraction of channels of whose variance more than half is lost; every channel's counts alike."""
    return float((np.square(errors) > _LOST).mean())


class Moments:
    """Count, mean, standard deviation (sd) and largest magnitude of every channel, clip by clip."""

    def __init__(self, dim: int) -> None:
        self._count = 0
        self._sum, self._squares = np.zeros(dim), np.zeros(dim)
        self._largest = np.zeros(dim)

    def add(self, count: int, mean: Array, variance: Array, largest: Array) -> None:
        """Take ``count`` tokens with these (D,) values."""
        exact = mean.astype(np.float64)
        self._count += count
        with np.errstate(over="ignore", invalid="ignore"):
            self._sum += count * exact
            self._squares += count * (variance + exact * exact)
        np.maximum(self._largest, largest, out=self._largest)

    def table(self) -> Array:
        """(4, D) float64: count, mean, standard deviation, largest magnitude."""
        count = max(self._count, 1)
        mean = self._sum / count
        with np.errstate(over="ignore", invalid="ignore"):  # values near the end of float32
            sd = np.sqrt(np.maximum(self._squares / count - mean * mean, 0))
        return np.stack([np.full_like(mean, self._count), mean, sd, self._largest])


def merge(tables: Iterable[Array], dim: int) -> Array:
    """The table (4, D) of the tokens of several tables, which do not overlap."""
    whole = Moments(dim)
    for count, mean, sd, largest in tables:
        whole.add(int(count[0]), mean, sd * sd, largest)
    return whole.table()


def _median(largest: Array) -> float:
    heard = largest[largest > 0]
    return float(np.median(heard)) if len(heard) else 0.0
