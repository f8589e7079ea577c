"""Mean and standard deviation of each channel over the train clips, in one pass."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.base import Reads
from featcache.heads.data.source import Source

BLOCK = 64  # clips read at once


def channel_moments(
    source: Source, rows: NDArray[np.int64], reads: Reads, layer: int
) -> tuple[Tensor, Tensor]:
    """What a head that ``reads`` this meets in these rows: mean and sd of its tokens, or of its clip vectors.

    Padding tokens do not count. Sums are float64: a channel may be hundreds of times larger than its spread.

    Returns:
        mean (D,) and sd (D,), float32; (layers, D) where the head reads layers
    """
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    own = np.sort(rows)
    for block in np.split(own, range(BLOCK, len(own), BLOCK)):
        batch = source.read(block)
        tokens, vectors, _ = batch.inputs(reads, source.cache.layers, layer, source.cache.has_cls)
        values = _flat(tokens, batch.audio) if tokens is not None else vectors
        assert values is not None  # a head reads one of them
        values = values.double()
        count, total, squares = (
            count + len(values), total + values.sum(dim=0), squares + values.square().sum(dim=0),
        )  # fmt: skip
    mean = total / max(count, 1)
    spread = (squares / max(count, 1) - mean.square()).clamp(min=0).sqrt()
    return mean.float(), spread.float()


def _flat(tokens: Tensor, audio: Tensor) -> Tensor:
    """The tokens that are audio, one a row: (n, D), or (n, layers, D) of (B, layers, N, D)."""
    return tokens.movedim(-2, 1)[audio]
