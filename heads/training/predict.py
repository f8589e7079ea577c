"""Logits of groups of heads on the clips of their tasks, from one read of each clip."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.base import Head, Inputs
from featcache.heads.data.batch import Batch
from featcache.heads.data.loader import read_ahead
from featcache.heads.data.source import Source
from featcache.heads.training.trial import Trial

Rows = NDArray[np.int64]


class Answering(Protocol):
    """Heads of one shape that give logits: in training (``Group``) or trained (``TrainedGroup``)."""

    @property
    def lead(self) -> Trial: ...

    @property
    def head(self) -> Head: ...

    def logits(self, inputs: Inputs) -> Tensor: ...


G = TypeVar("G", bound=Answering)


def inputs_of(group: Answering, batch: Batch, source: Source) -> Inputs:
    """What the heads of a group read of a batch."""
    reads, stored = group.head.reads, group.head.direction_only
    return batch.inputs(reads, source.cache.layers, group.lead.layer, source.cache.has_cls, stored=stored)


def predict(
    source: Source, groups: Sequence[G], rows: Sequence[Rows], batch_size: int
) -> Iterator[tuple[G, Tensor]]:
    """Each group with its logits (K, n, C) on the rows of its task.

    Args:
        rows: of each task
    """
    wanted = sorted({group.lead.task for group in groups})
    union = np.unique(np.concatenate([rows[task] for task in wanted]))  # ascending: reads go forward
    parts: dict[int, list[Tensor]] = {id(group): [] for group in groups}
    seen: dict[int, list[Rows]] = {task: [] for task in wanted}
    blocks = np.split(union, range(batch_size, len(union), batch_size))
    for block, batch in zip(blocks, read_ahead(source, blocks), strict=True):
        for task in wanted:
            inside = np.flatnonzero(np.isin(block, rows[task]))
            if not len(inside):
                continue
            seen[task].append(block[inside])
            own = batch if len(inside) == len(block) else batch.select(inside)
            for group in (group for group in groups if group.lead.task == task):
                parts[id(group)].append(group.logits(inputs_of(group, own, source)))
    for group in groups:
        task = group.lead.task
        place = np.searchsorted(np.concatenate(seen[task]), rows[task])
        logits = torch.cat(parts.pop(id(group)), dim=1)
        yield group, logits[:, torch.from_numpy(place).to(logits.device)]
