"""Clips of a cache as a torch dataset, with a manifest's labels where one is given."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from featcache.cache.format.dtypes import StoreDtype
from featcache.cache.format.layout import ArraySpec
from featcache.cache.format.quantize import dequantize
from featcache.errors import InputError
from featcache.manifest import Clip


class Store(Protocol):
    """What is read of a cache; ``TokenCache`` is one."""

    def gather(self, rows: Any, layer: int | None = None, out: Tensor | None = None) -> Tensor: ...
    def scales(self, rows: Any, layer: int | None = None) -> Tensor | None: ...
    def channel_scale(self, layer: int | None = None) -> Tensor | None: ...
    def mask(self, rows: Any) -> Tensor: ...
    def tokens_spec(self, layer: int | None = None) -> ArraySpec: ...
    @property
    def store(self) -> StoreDtype: ...


class TokenDataset(Dataset[tuple[Tensor, ...]]):
    """Clips by number: (tokens (N, D), valid (N,) bool, target), or without the target where no labels are.

    A target is a class number where each clip has exactly one label, else (C,) float32 of 0 and 1.
    ``valid`` is the mask that heads take: which tokens stand for audio. Quantized tokens come as
    float32, others as they are stored.

    A list of numbers gives a whole batch from one gather. With a ``BatchSampler`` as the
    ``sampler`` of a ``DataLoader`` (and ``batch_size=None``), no clip is copied twice on its way:
    a worker process gathers straight into memory that it shares with the trainer.

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
        stored = self.cache.gather(rows, self.layer, out=self._shared_buffer(len(rows)))
        scales, channels = self.cache.scales(rows, self.layer), self.cache.channel_scale(self.layer)
        tokens = dequantize(stored, scales, self.cache.store.name, channels)
        found = (tokens, self.cache.mask(rows))
        return found if self.targets is None else (*found, self.targets[torch.as_tensor(index)])

    def _shared_buffer(self, num_clips: int) -> Tensor | None:
        """Shared memory in a worker process, whose results would be copied there anyway."""
        if get_worker_info() is None:
            return None
        spec = self.cache.tokens_spec(self.layer)
        shape, dtype = (num_clips, *spec.row_shape), self.cache.store.torch
        # What default_collate does; share_memory_() would copy the empty tensor first.
        storage = torch.UntypedStorage._new_shared(num_clips * spec.row_bytes)  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=dtype).set_(storage).view(shape)


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
