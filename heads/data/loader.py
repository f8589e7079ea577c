"""Batches of tokens, read ahead of use: one read serves every head, label set and fold.

The order of an epoch sorts clips by a hash of (seed, epoch, what the clip is). It covers the whole
set, is the same for any encoder, cache layout or reader, and the order of a subset (the train
clips of a fold) is the whole order with the others left out: so folds can share one read. Each head
then shuffles a few batches at a time by its own seed: seeds differ in their order too, and still share
the read.
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
Plan = list[tuple[Rows, Rows]]  # of each batch: positions in the train part, and rows of the cache
WINDOW = 8  # batches within which each seed has an order of its own


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


def own_order(order: Rows, keys: NDArray[np.uint8], window: int, seed: int, epoch: int) -> Rows:
    """The order of one seed: every ``window`` neighbours of the common order, shuffled.

    Shape:
        - order: (n,) into keys (n, 16)
        - output: (n,)
    """
    shuffled = epoch_order(keys, seed, epoch)
    place = np.empty_like(shuffled)
    place[shuffled] = np.arange(len(shuffled))
    blocks = [order[start : start + window] for start in range(0, len(order), window)]
    return np.concatenate([block[np.argsort(place[block], kind="stable")] for block in blocks])


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
    """One batch for one learner: which of its train clips, and their tokens."""

    learner: int
    positions: Rows  # (B,) into the train part of the learner's task
    batch: Batch


@dataclass(frozen=True)
class Learner:
    """Heads that see the same clips in the same order: those of one task and one seed."""

    rows: Rows  # the train rows of its task
    seed: int


def train_steps(
    source: Source, learners: Sequence[Learner], batch_size: int, seed: int, epoch: int
) -> Iterator[Step]:
    """The batches of one pass of every learner; each row is read once, whatever number need it."""
    plans = [_plan(source, own, batch_size, seed, epoch) for own in learners]
    if source.resident:
        for number, plan in enumerate(plans):
            for positions, chosen in plan:
                yield Step(number, positions, source.read(chosen))
    elif all(_same(plan, plans[0]) for plan in plans):
        with closing(read_ahead(source, [own for _, own in plans[0]])) as batches:
            for (positions, _), batch in zip(plans[0], batches, strict=True):
                for number in range(len(learners)):
                    yield Step(number, positions, batch)
    else:
        union = np.unique(np.concatenate([own.rows for own in learners]))
        union = union[epoch_order(source.keys[union], seed, epoch)]
        yield from _windowed(source, union, plans, batch_size)


def _windowed(source: Source, union: Rows, plans: Sequence[Plan], batch_size: int) -> Iterator[Step]:
    """``train_steps`` of learners that differ: blocks of the union, held until all have passed."""
    place = np.full(source.num_rows, -1, dtype=np.int64)
    place[union] = np.arange(len(union))
    done = [0] * len(plans)  # batches of each learner that it has had
    held: list[Batch] = []
    first = last = 0  # the places that the held blocks cover
    with closing(read_ahead(source, _cut(union, batch_size), keep=True)) as batches:
        for batch in batches:
            held.append(batch)
            last += len(batch)
            for number, plan in enumerate(plans):
                while done[number] < len(plan) and place[plan[done[number]][1]].max() < last:
                    positions, rows = plan[done[number]]
                    yield Step(number, positions, Batch.pick(held, place[rows] - first, source.scratch))
                    done[number] += 1
            # Within its window a learner may still reach back.
            windows = [plan[begun : begun + WINDOW] for plan, begun in zip(plans, done, strict=True)]
            needed = min((int(place[rows].min()) for own in windows for _, rows in own), default=last)
            while held and first + len(held[0]) <= needed:
                first += len(held.pop(0))


def _plan(source: Source, learner: Learner, batch_size: int, seed: int, epoch: int) -> Plan:
    keys = source.keys[learner.rows]
    order = own_order(epoch_order(keys, seed, epoch), keys, WINDOW * batch_size, learner.seed, epoch)
    return [(positions, learner.rows[positions]) for positions in _cut(order, batch_size)]


def _same(one: Plan, other: Plan) -> bool:
    return len(one) == len(other) and all(np.array_equal(a[1], b[1]) for a, b in zip(one, other, strict=True))


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
