"""Metrics of (clips, classes) labels and logits, all in numpy; ``all_metrics`` are those of a result.

``labels`` are 0 or 1; where a metric ranks, any monotone transform of the logits gives the same.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from scipy.stats import rankdata

from featcache.heads.data.tasks import Kind, Part

Array = NDArray[np.number[Any]]
Floats = NDArray[np.float64]


def average_precision(labels: Array, scores: Array) -> Floats:
    """Average precision of each class, (C,); NaN for a class without positives.

    Source:
        scikit-learn's ``average_precision_score``: no interpolation, tied scores count as one step.

    >>> average_precision(np.array([[1, 0], [0, 0], [1, 0]]), np.array([[0.9, 0], [0.5, 0], [0.1, 0]]))
    array([0.83333333,        nan])
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    hits = np.take_along_axis(labels > 0, order, axis=0)
    found = np.cumsum(hits, axis=0)
    last = last_of_ties(ranked)
    precision = np.take_along_axis(found, last, axis=0) / (last + 1)
    positives = found[-1]
    with np.errstate(invalid="ignore"):
        result: Floats = np.where(hits, precision, 0.0).sum(axis=0) / np.where(positives, positives, np.nan)
    return result


def last_of_ties(ranked: Array) -> NDArray[np.int64]:
    """For each row of descending columns, the last row that holds the same score."""
    n = len(ranked)
    ends = np.ones(ranked.shape, dtype=bool)
    ends[:-1] = ranked[1:] != ranked[:-1]
    rows = np.where(ends, np.arange(n)[:, None], n)
    return np.minimum.accumulate(rows[::-1], axis=0)[::-1]


def auroc_per_class(labels: Array, scores: Array) -> Floats:
    """Area under the ROC curve of each class; NaN where all clips or none are positive."""
    present = labels > 0
    positives = present.sum(axis=0).astype(float)
    negatives = len(labels) - positives
    ranks = np.where(present, rankdata(scores, axis=0), 0.0).sum(axis=0)
    pairs = positives * negatives
    result: Floats = (ranks - positives * (positives + 1) / 2) / np.where(pairs > 0, pairs, np.nan)
    return result


def mean_average_precision(labels: Array, scores: Array) -> float:
    """Macro mAP: the mean over the classes that have positives (see ``classes_without_positives``)."""
    return _nanmean(average_precision(labels, scores))


def micro_average_precision(labels: Array, scores: Array) -> float:
    """Average precision of all (clip, class) pairs in one list."""
    return float(average_precision(labels.reshape(-1, 1), scores.reshape(-1, 1))[0])


def auroc(labels: Array, scores: Array) -> float:
    """Macro AUROC over the classes where it exists."""
    return _nanmean(auroc_per_class(labels, scores))


def top1(labels: Array, scores: Array) -> float:
    """Share of the labelled clips whose highest score is one of their classes."""
    labelled = labels.sum(axis=1) > 0
    hits = np.take_along_axis(labels, scores.argmax(axis=1)[:, None], axis=1)[:, 0] > 0
    return float(hits[labelled].mean()) if labelled.any() else float("nan")


def macro_f1(labels: Array, logits: Array, threshold: float = 0.0) -> float:
    """Mean over classes of F1, a class called present above the logit ``threshold`` (0 is p = 0.5).

    A class neither present nor called counts 0, as with scikit-learn's ``zero_division=0``.
    """
    called, present = logits > threshold, labels > 0
    total = called.sum(axis=0) + present.sum(axis=0)
    return float((2 * (called & present).sum(axis=0) / np.maximum(total, 1)).mean())


def ece(labels: Array, logits: Array, bins: int = 15, single_label: bool = False) -> float:
    """Expected calibration error: how far confidence and frequency differ, in equal-width bins.

    With several labels a clip, every (clip, class) pair is one sigmoid prediction of presence;
    with ``single_label`` every clip is one softmax prediction of its best class.

    Source:
        Guo et al. 2017, arXiv 1706.04599, equation 3
    """
    if single_label:
        best = logits.argmax(axis=1)[:, None]
        confidence = softmax(np.asarray(logits, dtype=float), axis=1).max(axis=1)
        correct = np.take_along_axis(labels, best, axis=1)[:, 0] > 0
    else:
        confidence, correct = expit(np.asarray(logits, dtype=float)).ravel(), labels.ravel() > 0
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, weights=confidence - correct, minlength=bins)
    return float(np.abs(gap).sum() / len(confidence))


def classes_without_positives(labels: Array) -> int:
    """How many classes the macro averages leave out."""
    return int((labels.sum(axis=0) == 0).sum())


def _nanmean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


MULTI: dict[str, Callable[[Array, Array], float]] = {
    "mAP": mean_average_precision,
    "micro-mAP": micro_average_precision,
    "AUROC": auroc,
    "F1": macro_f1,
    "top1": top1,
    "ECE": ece,
}


def all_metrics(logits: NDArray[np.floating[Any]], part: Part, kind: Kind) -> dict[str, float]:
    """Every metric that makes sense for the kind of task, each in 0..1."""
    labels = label_matrix(part, logits.shape[1])
    if kind == "multi-label":
        return {name: metric(labels, logits) for name, metric in MULTI.items()}
    return {
        "accuracy": top1(labels, logits),
        "mAP": mean_average_precision(labels, logits),
        "AUROC": auroc(labels, logits),
        "ECE": ece(labels, logits, single_label=True),
    }


def label_matrix(part: Part, num_classes: int) -> NDArray[np.uint8]:
    """Targets as (n, C) of 0 and 1."""
    if part.targets.ndim == 2:
        return part.targets.astype(np.uint8)
    return np.eye(num_classes, dtype=np.uint8)[part.targets.astype(np.int64)]
