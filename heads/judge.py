"""All metrics of one head's logits, by the names that results carry."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.heads import metrics
from featcache.heads.data import Kind, Part

MULTI: dict[str, Callable[[metrics.Array, metrics.Array], float]] = {
    "mAP": metrics.mean_average_precision,
    "micro-mAP": metrics.micro_average_precision,
    "AUROC": metrics.auroc,
    "F1": metrics.macro_f1,
    "top1": metrics.top1,
    "ECE": metrics.ece,
}


def all_metrics(logits: NDArray[np.floating[Any]], part: Part, kind: Kind) -> dict[str, float]:
    """Every metric that makes sense for the kind of task, each in 0..1."""
    labels = label_matrix(part, logits.shape[1])
    if kind == "multi-label":
        return {name: metric(labels, logits) for name, metric in MULTI.items()}
    return {
        "accuracy": metrics.top1(labels, logits),
        "mAP": metrics.mean_average_precision(labels, logits),
        "AUROC": metrics.auroc(labels, logits),
        "ECE": metrics.ece(labels, logits, single_label=True),
    }


def label_matrix(part: Part, num_classes: int) -> NDArray[np.uint8]:
    """Targets as (n, C) of 0 and 1."""
    if part.targets.ndim == 2:
        return part.targets.astype(np.uint8)
    return np.eye(num_classes, dtype=np.uint8)[part.targets.astype(np.int64)]
