"""Heads without weights: nearest neighbours and nearest class means, by cosine."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.heads.data.tasks import Kind

TEMPERATURE = 0.07  # DINO's
BLOCK = 1024  # clips whose similarities to all train clips are held at once
LEAST = 1e-6  # share of the votes that a class without any gets, so that its logit is finite


def fit_neighbours(
    features: Tensor, labels: Tensor, kind: Kind, strengths: Sequence[float]
) -> Callable[[Tensor], Tensor]:
    """The k most similar train clips vote for their labels, each with weight exp(cosine / 0.07).

    The logit is of the share of the votes: its logarithm, for multi-label its log odds.

    Args:
        strengths: k, from many to few; more than there are clips counts as all

    Shape:
        - features: (n, D); labels: (n, C) of 0 and 1

    Source:
        Caron et al. 2021, arXiv 2104.14294, https://github.com/facebookresearch/dino eval_knn.py
    """
    train, targets = _unit(features), labels.double()
    counts = [min(int(k), len(train)) for k in strengths]

    def shares(block: Tensor) -> Tensor:
        similar, which = (_unit(block) @ train.T).topk(max(counts), dim=1)
        votes = (similar / TEMPERATURE).exp()  # (m, k)
        cast = votes.unsqueeze(-1) * targets[which]  # (m, k, C)
        return torch.stack([cast[:, :k].sum(1) / votes[:, :k].sum(1, keepdim=True) for k in counts])

    def score(queries: Tensor) -> Tensor:
        found = torch.cat([shares(block) for block in torch.split(queries, BLOCK)], dim=1)  # (S, m, C)
        return found.clamp(min=LEAST).log() if kind == "single-label" else found.logit(eps=LEAST)

    return score


def fit_centroids(
    features: Tensor, labels: Tensor, kind: Kind, strengths: Sequence[float]
) -> Callable[[Tensor], Tensor]:
    """The cosine to the mean of each class; for multi-label to the mean with it less the mean without.

    Multi-label scores are counted from halfway between the scores of the two means of the unit vectors.

    Shape:
        - features: (n, D); labels: (n, C) of 0 and 1
    """
    train, present = _unit(features), labels.double()
    with_it = _means(train, present)
    if kind == "single-label":
        centres, halfway = _unit(with_it), torch.zeros(labels.shape[1], dtype=torch.float64)
    else:
        without = _means(train, 1 - present)
        centres = _unit(with_it - without)
        halfway = ((with_it + without) / 2 * centres).sum(dim=1)
    return lambda queries: (_unit(queries) @ centres.T - halfway).unsqueeze(0)


def _means(train: Tensor, present: Tensor) -> Tensor:
    """Mean (C, D) of the clips of each class; zero for a class that no clip has."""
    return present.T @ train / present.sum(dim=0).clamp(min=1)[:, None]


def _unit(features: Tensor) -> Tensor:
    return nn_f.normalize(features.double(), dim=1)
