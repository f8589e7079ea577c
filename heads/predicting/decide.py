"""From logits to detections: a threshold for each class, chosen on the validation split, or the best few."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from featcache.errors import InputError
from featcache.heads.predicting.recordings import Scored
from featcache.heads.report.metrics import last_of_ties

Array = NDArray[Any]
_LARGEST = 30.0  # of a logit that becomes a probability: beyond it, float64 has no other number below 1


class Detection(NamedTuple):
    """One class in one window of a recording."""

    file: str
    start: float  # [s]
    end: float  # [s]
    label: str
    score: float  # probability: of a softmax over classes where a clip has one label, else of a sigmoid


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Which classes of a window are reported.

    Args:
        thresholds: least probability of each class, (C,)
        top: instead, so many classes of highest score
    """

    classes: Sequence[str]
    single: bool
    thresholds: NDArray[np.float64] | None = None
    top: int | None = None

    def detections(self, scored: Scored) -> list[Detection]:
        """The reported classes of a window, the best first."""
        scores = probabilities(scored.logits, self.single)
        order = np.argsort(-scored.logits, kind="stable")
        if self.thresholds is not None:
            order = order[scores[order] >= self.thresholds[order]]
        return [
            Detection(scored.file, scored.start, scored.end, self.classes[number], float(scores[number]))
            for number in order[: self.top]
        ]


def probabilities(logits: Array, single: bool) -> NDArray[np.float64]:
    """Logits (…, C) as probabilities.

    >>> probabilities(np.array([0.0, 0.0]), single=False), probabilities(np.array([0.0, 0.0]), single=True)
    (array([0.5, 0.5]), array([0.5, 0.5]))
    """
    values = np.asarray(logits, dtype=np.float64)
    result: NDArray[np.float64] = softmax(values, axis=-1) if single else expit(values)
    return result


def best_thresholds(logits: Array, labels: Array) -> list[float | None]:
    """The logit of each class from which on "yes" has the best F1 score; None of one without positives.

    Between equals the highest. It is a score that a clip had: clips at it count as found.

    Shape:
        - logits, labels (0 or 1): (n, C)

    >>> best_thresholds(np.array([[3.0], [2.0], [1.0]]), np.array([[1], [1], [0]]))
    [2.0]
    """
    order = np.argsort(-logits, axis=0, kind="stable")
    ranked = np.take_along_axis(logits, order, axis=0)
    found = np.cumsum(np.take_along_axis(labels > 0, order, axis=0), axis=0)
    last = last_of_ties(ranked)
    f1 = 2 * np.take_along_axis(found, last, axis=0) / (last + 1 + found[-1])
    best = np.take_along_axis(ranked, f1.argmax(axis=0)[None], axis=0)[0]
    return [float(value) if count else None for value, count in zip(best, found[-1], strict=True)]


def decision(
    classes: Sequence[str],
    single: bool,
    chosen: Sequence[float | None] | None,
    *,
    threshold: float | None = None,
    top: int | None = None,
) -> Decision:
    """What a head reports, unless told otherwise: the best class of a clip that has one, else those above
    the thresholds ``chosen`` on its validation clips.

    Args:
        chosen: logits; a class that has none takes one half
        threshold: least probability, of every class
        top: so many classes at most

    Raises:
        InputError: a number is out of range.
    """
    if top is not None and top < 1:
        raise InputError(f"top must be 1 or more, not {top}", options=("top",))
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(
            f"threshold must be a probability from 0 to 1, not {threshold}", options=("threshold",)
        )
    least: NDArray[np.float64] | None = None
    if threshold is not None:
        least = np.full(len(classes), threshold)
    elif top is None and single:
        top = 1
    elif top is None:
        logits = [0.0 if value is None else value for value in chosen or [None] * len(classes)]
        least = expit(np.clip(logits, -np.inf, _LARGEST))
    return Decision(classes=classes, single=single, thresholds=least, top=top)
