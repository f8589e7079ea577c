"""Test sets redrawn with replacement, and the scores of a head on each of them.

The draws of a test set follow from what is drawn from (its clips, its recordings, or those of all test sets
that overlap), so every head meets the same redrawn sets and every fold has draws of its own.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
BLOCK = 1 << 22  # weights held at once: 16 MB


def redrawn(
    ids: Sequence[str],
    logits: NDArray[Any],
    targets: NDArray[Any],
    metric: str,
    draws: int,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    pool: Collection[str] = (),
) -> Floats:
    """Accuracy or mAP on ``draws`` redrawn test sets, (draws,); the order of the clips does not matter.

    Args:
        groups: the recording of each clip; recordings are then drawn whole
        pool: recordings (or clips) to draw from, of which the test set may hold a part; its own unless given

    Shape:
        - logits: (n, C)
        - targets: (n,) classes for accuracy, (n, C) or (n,) for mAP
    """
    order = np.argsort(ids)
    logits, targets = logits[order], targets[order]
    names = np.asarray(ids if groups is None else groups)[order]
    units = np.unique(list(pool) or names)
    of = np.searchsorted(units, names)
    hits = (logits.argmax(axis=1) == targets).astype(np.float32) if metric == "accuracy" else None
    if hits is None and targets.ndim == 1:
        targets = np.eye(logits.shape[1], dtype=np.uint8)[targets.astype(np.int64)]
    parts = []
    for weights in _weights(units, of, draws, seed):
        if hits is None:
            parts.append(weighted_map(targets, logits, weights))
        else:
            parts.append((weights @ hits / np.maximum(weights.sum(axis=1), 1)).astype(np.float64))
    return np.concatenate(parts)


def _weights(
    names: NDArray[np.str_], of: NDArray[np.int64], draws: int, seed: int
) -> Iterator[NDArray[np.float32]]:
    """How often each clip occurs in each redrawn set, (block, n) at a time."""
    digest = hashlib.blake2b("\n".join(names.tolist()).encode(), digest_size=8).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest, "little")])
    units = len(names)
    size = max(1, BLOCK // max(units, len(of)))
    for start in range(0, draws, size):
        count = min(size, draws - start)
        drawn = generator.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units)
        yield times[:, of].astype(np.float32)


def weighted_map(labels: NDArray[Any], scores: NDArray[Any], weights: NDArray[Any]) -> Floats:
    """Macro mAP of test sets in which clip i occurs ``weights[d, i]`` times, (draws,).

    Only what lies between two positives of a ranking is summed, for all draws in one sparse product:
    the time goes with n * C * draws, the memory with positives * draws of one class.

    Shape:
        - labels, scores: (n, C)
        - weights: (draws, n)
    """
    columns = np.ascontiguousarray(weights.T, dtype=np.float32)  # (n, draws); whole numbers are exact
    total, known = np.zeros(columns.shape[1]), np.zeros(columns.shape[1])
    for c in range(labels.shape[1]):
        positive = labels[:, c] > 0
        if positive.any():
            precision, own = _precision(positive, scores[:, c], columns)
            count = own.sum(axis=0)
            total += np.where(count > 0, (own * precision).sum(axis=0) / np.maximum(count, 1), 0.0)
            known += count > 0
    result: Floats = total / np.maximum(known, 1)
    return result


def _precision(
    positive: NDArray[np.bool_], scores: NDArray[Any], columns: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Precision at each score that a positive has, and the weight of the positives there, (steps, draws)."""
    steps = np.unique(scores[positive])[::-1]  # tied scores are one step
    place = np.searchsorted(-steps, -scores, side="left")  # the first step at which a clip is seen
    rows = np.flatnonzero(place < len(steps))
    hits = np.flatnonzero(positive)
    seen = _sums(place[rows], rows, len(steps), columns).cumsum(axis=0)
    own = _sums(place[hits], hits, len(steps), columns)
    return own.cumsum(axis=0) / np.maximum(seen, 1), own


def _sums(
    place: NDArray[np.int64], rows: NDArray[np.int64], steps: int, columns: NDArray[np.float32]
) -> NDArray[np.float32]:
    ones = np.ones(len(rows), dtype=np.float32)
    result: NDArray[np.float32] = csr_array((ones, (place, rows)), shape=(steps, len(columns))) @ columns
    return result
