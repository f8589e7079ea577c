"""Clips of a cache as a torch dataset, with a manifest's labels where one is given."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from featcache.cache.format.dtypes import StoreDtype
from featcache.cache.format.quantize import dequantize
from featcache.cache.read.loader import BatchLoader
from featcache.errors import InputError
from featcache.manifest import Clip


class Store(Protocol):
    """What is read of a cache; ``TokenCache`` is one."""

    def gather(self, rows: Any, layer: int | None = None, out: Tensor | None = None) -> Tensor: ...
    def scales(self, rows: Any, layer: int | None = None) -> Tensor | None: ...
    def channel_scale(self, layer: int | None = None) -> Tensor | None: ...
    def mask(self, rows: Any) -> Tensor: ...
    @property
    def store(self) -> StoreDtype: ...
    @property
    def num_tokens(self) -> int: ...
    @property
    def dim(self) -> int: ...


class TokenDataset(Dataset[tuple[Tensor, ...]]):
    """Clips by number: (tokens (N, D), valid (N,) bool, target), or without the target where no labels are.

    A target is a class number where each clip has exactly one label, else (C,) float32 of 0 and 1.
    ``valid`` is the mask that heads take: which tokens stand for audio. Quantized tokens come as
    float32, others as they are stored.

    A ``DataLoader`` takes whole batches from one gather. `loader` is several times faster: its workers gather
    into memory that is used again. A list of numbers gives a batch, too.

    Attributes:
        rows: of the cache, (n,)
        ids: of the clips
        classes: what targets count
    """

    def __init__(
        self,
        cache: Store,
        rows: Sequence[int],
        ids: Sequence[str],
        *,
        layer: int | None = None,
        targets: Tensor | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        self.cache, self.layer = cache, layer
        self.rows = np.asarray(rows, dtype=np.int64)
        self.ids, self.classes, self.targets = list(ids), tuple(classes), targets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | Sequence[int]) -> tuple[Tensor, ...]:
        if np.ndim(index) == 0:  # a number of any kind: samplers give numpy's and torch's, too
            return tuple(part[0] for part in self[[int(index)]])  # type: ignore[arg-type]
        rows = self.rows[np.asarray(index, dtype=np.int64)]
        shape = (len(rows), self.cache.num_tokens, self.cache.dim)
        tokens = torch.empty(shape, dtype=self.token_dtype)
        return tokens, *self.fill(index, tokens)  # type: ignore[arg-type]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, ...]]:
        """The samples of a batch, which share the memory of one gather: what a ``DataLoader`` asks for."""
        return list(zip(*self[list(indices)], strict=True))

    @property
    def token_dtype(self) -> torch.dtype:
        """Of the tokens that are given: float32 for quantized ones, else as they are stored."""
        return torch.float32 if self.cache.store.scaled else self.cache.store.torch

    def fill(self, index: Sequence[int], out: Tensor) -> tuple[Tensor, ...]:
        """Bring the tokens of several clips into ``out`` (B, N, D).

        Returns:
            (valid, target), or (valid,) where no labels are.
        """
        rows = self.rows[np.asarray(index, dtype=np.int64)]
        if self.cache.store.scaled:
            stored, scales = self.cache.gather(rows, self.layer), self.cache.scales(rows, self.layer)
            out.copy_(dequantize(stored, scales, self.cache.store.name, self.cache.channel_scale(self.layer)))
        else:
            self.cache.gather(rows, self.layer, out=out)
        valid = self.cache.mask(rows)
        return (valid,) if self.targets is None else (valid, self.targets[torch.as_tensor(index)])

    def loader(
        self, batch_size: int, *, shuffle: bool = False, workers: int = 2, drop_last: bool = False
    ) -> BatchLoader:
        """Batches of (tokens (B, N, D), valid (B, N), target), as fast as they can be copied.

        The tokens of a batch are good until the next one is asked for; see `BatchLoader`.

        Args:
            shuffle: a new order in every iteration, from ``torch.manual_seed``
            workers: processes; 0 gathers in this one
            drop_last: leave out the last batch where it is not full

        Raises:
            InputError: a batch has no clip, or there are less than no workers.
        """
        if batch_size < 1 or workers < 0:
            raise InputError(
                f"a loader needs a batch_size of 1 or more and workers of 0 or more, found {batch_size} and "
                f"{workers}",
                options=("batch_size", "workers"),
            )
        return BatchLoader(self, batch_size, shuffle=shuffle, workers=workers, drop_last=drop_last)


def choose_split(
    joined: Sequence[tuple[Clip, int]], split: str | None, name: object
) -> list[tuple[Clip, int]]:
    """The clips of one split, with their rows; all of them where none is named.

    Raises:
        InputError: no clip has that split.
    """
    chosen = [(clip, row) for clip, row in joined if split in (None, clip.split)]
    if not chosen:
        found = sorted({clip.split or "none" for clip, _ in joined})
        raise InputError(f"no clip of {name} has the split {split!r}; its splits: {', '.join(found)}")
    return chosen


def targets_of(clips: Iterable[Clip], classes: Sequence[str], single: bool) -> Tensor:
    """Class numbers (n,) int64, or rows of 0 and 1 (n, C) float32."""
    number = {label: place for place, label in enumerate(classes)}
    if single:
        return torch.tensor([number[clip.labels[0]] for clip in clips], dtype=torch.int64)
    rows = [[number[label] for label in clip.labels] for clip in clips]
    targets = torch.zeros(len(rows), len(classes))
    for target, own in zip(targets, rows, strict=True):
        target[own] = 1.0
    return targets
