"""Batches for training, gathered by worker processes into memory that is used again and again."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from featcache.cache.read.dataset import TokenDataset

_AHEAD = 2  # batches that each worker makes before they are asked for

Task = tuple[int, list[int]]  # a slot, and the places in the dataset that go into it


class BatchLoader:
    """Iterates over (tokens, valid, target) batches, or (tokens, valid) where the dataset has no labels.

    A ``DataLoader`` makes each batch in new memory, and touching that costs more than the copy. Here workers
    gather into a ring of shared buffers, which are page-locked where there is CUDA. So **the tokens of a
    batch are good until the next one is asked for**; clone what is kept longer. One iteration at a time.

    Args:
        shuffle: a new order in every iteration, from ``torch.manual_seed``
        workers: processes; 0 gathers in this one
        drop_last: leave out the last batch where it is not full
    """

    def __init__(
        self,
        dataset: "TokenDataset",
        batch_size: int,
        *,
        shuffle: bool = False,
        workers: int = 2,
        drop_last: bool = False,
    ) -> None:
        slots = workers * _AHEAD + 1  # so many batches are under way or in the caller's hands
        shape = (slots, batch_size, dataset.cache.num_tokens, dataset.cache.dim)
        self._buffers = torch.empty(shape, dtype=dataset.token_dtype)
        if workers:
            self._buffers.share_memory_()  # type: ignore[no-untyped-call]
        self._locked = torch.cuda.is_available() and _page_lock(self._buffers)
        self._tasks = _Tasks(len(dataset), batch_size, slots, shuffle, drop_last)
        self._loader: DataLoader[Any] = DataLoader(
            _Filled(dataset, self._buffers), batch_size=None, sampler=self._tasks, num_workers=workers,
            prefetch_factor=_AHEAD if workers else None, persistent_workers=workers > 0, collate_fn=_as_it_is,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for slot, count, *rest in self._loader:
            yield self._buffers[slot, :count], *map(torch.from_numpy, rest)

    def __del__(self) -> None:
        if getattr(self, "_locked", False):
            torch.cuda.cudart().cudaHostUnregister(self._buffers.data_ptr())  # type: ignore[no-untyped-call]


class _Tasks:
    """What goes into which slot: slots take turns, and one is filled again when its batch is done with."""

    def __init__(self, clips: int, batch_size: int, slots: int, shuffle: bool, drop_last: bool) -> None:
        self._clips, self._batch_size, self._slots = clips, batch_size, slots
        self._shuffle, self._drop_last = shuffle, drop_last

    def __len__(self) -> int:
        return (self._clips if self._drop_last else self._clips + self._batch_size - 1) // self._batch_size

    def order(self) -> Tensor:
        """The places of the clips in the dataset, as they come."""
        return torch.randperm(self._clips) if self._shuffle else torch.arange(self._clips)

    def __iter__(self) -> Iterator[Task]:
        order = self.order()
        for number in range(len(self)):
            first = number * self._batch_size
            yield number % self._slots, order[first : first + self._batch_size].tolist()


class _Filled(Dataset[tuple[Any, ...]]):
    """Fills slots; what it returns is small and goes through a pipe."""

    def __init__(self, dataset: "TokenDataset", buffers: Tensor) -> None:
        self._dataset, self._buffers = dataset, buffers

    def __getitem__(self, task: Task) -> tuple[Any, ...]:
        slot, places = task
        rest = self._dataset.fill(places, self._buffers[slot, : len(places)])
        return slot, len(places), *(np.asarray(part) for part in rest)


def _as_it_is(found: Any) -> Any:
    return found


def _page_lock(buffers: Tensor) -> bool:
    """Let the GPU copy from shared memory without waiting; False where the system does not allow it."""
    size = buffers.numel() * buffers.element_size()
    result = torch.cuda.cudart().cudaHostRegister(buffers.data_ptr(), size, 0)  # type: ignore[no-untyped-call]
    return int(result) == 0
