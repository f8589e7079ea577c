"""Several processes, one search: under torchrun, trials are dealt out over ranks.

Heads are small, so each trains on one device whole; splitting the batches of one head over devices
would send more than it computes. All ranks hold the same studies and hear the same scores.
"""

import os
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


class Ranks:
    """This process among its equals.

    Args:
        join: take part in the job that torchrun started this process for; alone otherwise, and alone
            where torchrun did not start it
    """

    def __init__(self, join: bool = False) -> None:
        told = os.environ if join else {}
        self.rank = int(told.get("RANK", "0"))
        self.size = int(told.get("WORLD_SIZE", "1"))
        self.local = int(told.get("LOCAL_RANK", "0"))
        if self.size > 1 and not dist.is_initialized():
            # Scores and trained heads travel, not gradients: gloo does on any machine.
            dist.init_process_group("gloo")

    @property
    def first(self) -> bool:
        """Whether this process writes the files and talks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this rank: ``auto`` and ``cuda`` are dealt out where there are several."""
        if self.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return name

    def mine(self, items: list[T]) -> list[T]:
        """This rank's share, every ``size``-th."""
        return items[self.rank :: self.size]

    def gather(self, own: T) -> list[T]:
        """What every rank holds, in the order of ranks."""
        if self.size == 1:
            return [own]
        found: list[T | None] = [None] * self.size
        dist.all_gather_object(found, own)
        return [value for value in found if value is not None]
