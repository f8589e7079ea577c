"""Batches of tokens, read ahead of use: one read serves every head, label set and fold.

The order of an epoch sorts clips by a hash of (seed, epoch, what the clip is). It covers the whole
set, is the same for any encoder, cache layout or reader, and the order of a subset (the train
clips of a fold) is the whole order with the others left out: so folds can share one read.
"""

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featcache.heads.data.batch import Batch
from featcache.heads.data.source import Source

Rows = NDArray[np.int64]


def epoch_order(keys: NDArray[np.uint8], seed: int, epoch: int) -> Rows:
    """A permutation of clips that depends on their keys, the seed and the epoch alone.

    Shape:
        - keys: (n, 16) uint8, as ``TokenCache.keys``
        - output: (n,)

    >>> keys = np.arange(64, dtype=np.uint8).reshape(4, 16)
    >>> order = epoch_order(keys, seed=0, epoch=1)
    >>> bool((keys[order][order.argsort()] == keys).all())
    True
    """
    words = np.ascontiguousarray(keys).view(np.uint64)  # (n, 2)
    salt = np.random.default_rng([seed, epoch]).integers(2**63, size=2, dtype=np.uint64)
    mixed = _mix(_mix(words[:, 0] ^ salt[0]) + words[:, 1] ^ salt[1])
    return np.argsort(mixed, kind="stable").astype(np.int64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def num_batches(clips: int, batch_size: int) -> int:
    """Batches of an epoch: the last may be short, but never one clip alone.

    A batch norm in a head has no variance over one clip, so a single left-over joins the batch
    before it.

    >>> num_batches(256, 128), num_batches(257, 128), num_batches(258, 128)
    (2, 2, 3)
    """
    full, rest = divmod(clips, batch_size)
    return max(full + (rest > 1), 1)


@dataclass(frozen=True)
class Step:
    """One batch of one task: which of its train clips, and their tokens."""

    task: int
    positions: Rows  # (B,) into the task's train part
    batch: Batch


def train_steps(
    source: Source, rows: Sequence[Rows], batch_size: int, seed: int, epoch: int
) -> Iterator[Step]:
    """The batches of one epoch of every task; each row is read once, whatever number need it.

    Args:
        rows: the train rows of each task
    """
    if source.resident:
        for task, own in enumerate(rows):
            for positions, chosen in _plan(source.keys[own], own, batch_size, seed, epoch):
                yield Step(task, positions, source.read(chosen))
    elif all(np.array_equal(own, rows[0]) for own in rows):
        plan = _plan(source.keys[rows[0]], rows[0], batch_size, seed, epoch)
        with closing(read_ahead(source, [own for _, own in plan])) as batches:
            for (positions, _), batch in zip(plan, batches, strict=True):
                for task in range(len(rows)):
                    yield Step(task, positions, batch)
    else:
        yield from _windowed(source, rows, batch_size, seed, epoch)


def _windowed(source: Source, rows: Sequence[Rows], batch_size: int, seed: int, epoch: int) -> Iterator[Step]:
    """``train_steps`` of tasks with different clips: blocks of the union, held until all have passed."""
    union = np.unique(np.concatenate(rows))
    union = union[epoch_order(source.keys[union], seed, epoch)]
    place = np.full(source.num_rows, -1, dtype=np.int64)
    place[union] = np.arange(len(union))
    queues = [iter(_plan(source.keys[own], own, batch_size, seed, epoch)) for own in rows]
    waiting = [next(steps, None) for steps in queues]
    held: list[Batch] = []
    first = last = 0  # the places that the held blocks cover
    with closing(read_ahead(source, _cut(union, batch_size), keep=True)) as batches:
        for batch in batches:
            held.append(batch)
            last += len(batch)
            for task, steps in enumerate(queues):
                while (step := waiting[task]) and place[step[1]].max() < last:
                    yield Step(task, step[0], Batch.pick(held, place[step[1]] - first, source.scratch))
                    waiting[task] = next(steps, None)
            needed = min((int(place[step[1]].min()) for step in waiting if step), default=last)
            while held and first + len(held[0]) <= needed:
                first += len(held.pop(0))


def _plan(
    keys: NDArray[np.uint8], rows: Rows, batch_size: int, seed: int, epoch: int
) -> list[tuple[Rows, Rows]]:
    order = epoch_order(keys, seed, epoch)
    return [(positions, rows[positions]) for positions in _cut(order, batch_size)]


def _cut(order: Rows, batch_size: int) -> list[Rows]:
    count = num_batches(len(order), batch_size)
    starts = [index * batch_size for index in range(1, count)]
    return np.split(order, starts)


def read_ahead(source: Source, blocks: Sequence[Rows], *, keep: bool = False) -> Generator[Batch]:
    """Read blocks of rows in order in a thread, one block ahead of the one in use.

    Args:
        keep: blocks stay usable after the next one is asked for (else their memory is reused)
    """
    if source.resident:
        yield from (source.read(rows) for rows in blocks)
        return
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
    stop = threading.Event()
    worker = threading.Thread(target=_read_all, args=(source, blocks, keep, ready, stop), daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while worker.is_alive():  # it may wait for room in the queue
            _drain(ready)
            worker.join(timeout=0.01)


def _read_all(
    source: Source,
    blocks: Sequence[Rows],
    keep: bool,
    ready: "queue.Queue[Batch | BaseException | None]",
    stop: threading.Event,
) -> None:
    try:
        for index, rows in enumerate(blocks):
            if stop.is_set():
                return
            if index + 1 < len(blocks):
                source.prefetch(blocks[index + 1])
            # One block is in use, one waits, one is being filled: three buffers are enough.
            ready.put(source.to_device(source.stage(rows, slot=None if keep else index % 3)))
        ready.put(None)
    except BaseException as error:
        ready.put(error)


def _drain(ready: "queue.Queue[Batch | BaseException | None]") -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        return
