"""The validation score of many heads at once: what a search looks at after every epoch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.data.tasks import Kind


def score_stack(logits: Tensor, targets: NDArray[np.generic], kind: Kind) -> list[float]:
    """Macro mAP, or accuracy where each clip has one label, of each of K heads; NaN with a NaN logit.

    Shape:
        - logits: (K, n, C)
        - targets: (n, C) 0 or 1, or (n,) class numbers
    """
    known = torch.from_numpy(targets).to(logits.device)
    if kind == "single-label":
        scores = (logits.argmax(dim=2) == known).double().mean(dim=1)
    else:
        scores = stacked_average_precision(logits, known).nanmean(dim=1)
    # A NaN would sort as the largest score, and argmax would take it for the answer.
    return scores.masked_fill(logits.isnan().flatten(1).any(dim=1), torch.nan).tolist()


def stacked_average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each head and class, (K, C) float64; NaN for a class without positives.

    Equal to ``metrics.average_precision``, ties included, at a fraction of the time: the rank of a
    positive is found in the sorted scores, so no (K, n, C) array of indices is made.

    Shape:
        - scores: (K, n, C)
        - labels: (n, C) 0 or 1

    >>> stacked_average_precision(torch.tensor([[[0.9], [0.5], [0.1]]]), torch.tensor([[1], [0], [1]]))
    tensor([[0.8333]], dtype=torch.float64)
    """
    K, n, C = scores.shape
    count = (labels > 0).sum(dim=0)  # (C,)
    most = max(int(count.max()), 1)
    clips = torch.argsort((labels > 0).byte(), dim=0, descending=True, stable=True)[:most].T  # (C, most)
    counted = torch.arange(most, device=scores.device) < count.unsqueeze(1)
    by_class = scores.transpose(1, 2).contiguous()  # (K, C, n)
    positive = by_class.gather(2, clips.expand(K, C, most)).masked_fill(~counted, -torch.inf)
    everyone, positive = _sorted(by_class), _sorted(positive)
    # A tie counts as one step: all clips with at least this score.
    above = n - torch.searchsorted(everyone, positive)
    found = most - torch.searchsorted(positive, positive)
    precision = (found / above.double()).masked_fill(positive == -torch.inf, 0.0)
    return precision.sum(dim=2) / torch.where(count > 0, count, torch.nan)


def _sorted(values: Tensor) -> Tensor:
    """Ascending along the last axis."""
    if values.device.type == "cpu":  # numpy's vectorised sort is ten times torch's here
        return torch.from_numpy(np.sort(values.numpy(), axis=-1))
    return values.sort(dim=-1).values
