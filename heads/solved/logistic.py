"""Logistic regression with an L2 penalty, along a path from the strongest penalty to the weakest."""

from collections.abc import Sequence

import torch
from torch import Tensor

from featcache.heads.data.tasks import Kind
from featcache.heads.solved.descent import minimise, sigmoid_loss, softmax_loss
from featcache.heads.solved.linear import LinearPath
from featcache.heads.solved.spectrum import spectrum_of

# What is left to gain, as a share of the loss, and the loss [nats] below which it is a share of that.
TIGHT = {
    "tolerance": 1e-11,
    "slight": 0.0,
}  # at 1e-8 the weights of C = 100 are off by 4e-4: clips change sides
ON_PATH = {"tolerance": 1e-5, "slight": 1e-3}  # where strengths are only compared: a fifth of the time
MOST = 1000  # iterations a penalty


def fit_logistic(features: Tensor, labels: Tensor, kind: Kind, strengths: Sequence[float]) -> LinearPath:
    """Fit a softmax over the classes, or for multi-label one regression a class against the rest.

    Minimises ``C * sum of losses + |W|^2 / 2`` on standardised features, the bias free, as
    scikit-learn's ``LogisticRegression`` does; each penalty starts from the solution of the one before.
    A path is solved to ``ON_PATH``, a single strength to ``TIGHT``.

    Args:
        strengths: C, from the strongest penalty (smallest) to the weakest

    Shape:
        - features: (n, D); labels: (n, C) of 0 and 1
    """
    spectrum = spectrum_of(features)
    n, C = labels.shape
    inputs = torch.cat([spectrum.turned, torch.ones(n, 1, dtype=torch.float64)], dim=1)  # (n, r + 1)
    single = kind == "single-label"
    shape = (1, C) if single else (C, 1)
    loss, targets = softmax_loss if single else sigmoid_loss, labels.double().view(n, *shape)
    weights = torch.zeros(*shape, inputs.shape[1], dtype=torch.float64)
    share = (targets.sum(dim=0) + 0.5) / (n + 1)
    weights[..., -1] = share.log() if single else share.logit()
    energy = torch.cat([spectrum.energy / n, torch.ones(1, dtype=torch.float64)])
    path = []
    for strength in strengths:
        decay = torch.full_like(energy, 1 / (strength * n))
        decay[-1] = 0
        scores = (inputs @ weights.view(C, -1).T).view(n, *shape)
        shares = loss(scores, targets)[1]
        curvature = (shares * (1 - shares)).mean(dim=0).clamp(min=1e-6).unsqueeze(-1)  # (P, K, 1)
        weights = minimise(
            inputs, targets, loss, weights, decay, (curvature * energy + decay).sqrt(),
            most=MOST, **(TIGHT if len(strengths) == 1 else ON_PATH),
        )  # fmt: skip
        path.append(weights.view(C, -1))
    solved = torch.stack(path)  # (S, C, r + 1)
    return LinearPath(spectrum, solved[..., :-1], solved[..., -1])
