"""Ridge regression onto labels: closed form, the whole path of penalties from one decomposition."""

from collections.abc import Sequence

import torch
from torch import Tensor

from featcache.heads.data.tasks import Kind
from featcache.heads.solved.linear import LinearPath
from featcache.heads.solved.spectrum import spectrum_of


def fit_ridge(features: Tensor, labels: Tensor, kind: Kind, strengths: Sequence[float]) -> LinearPath:
    """Least squares onto one-hot targets, for multi-label onto -1 and +1.

    Minimises ``|XW + b - Y|^2 + alpha |W|^2`` on standardised features, the bias free.

    Args:
        strengths: alpha, from the strongest penalty (largest) to the weakest

    Shape:
        - features: (n, D); labels: (n, C) of 0 and 1
    """
    spectrum = spectrum_of(features)
    targets = labels.double() if kind == "single-label" else 2 * labels.double() - 1
    bias = targets.mean(dim=0)
    pull = (targets - bias).T @ spectrum.turned  # (C, r)
    alphas = torch.tensor(list(strengths), dtype=torch.float64)
    weights = pull / (spectrum.energy + alphas[:, None, None])  # (S, C, r)
    return LinearPath(spectrum, weights, bias.expand(len(alphas), -1))
