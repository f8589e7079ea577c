"""Minimise convex losses of linear scores: L-BFGS over many independent problems side by side.

One-against-rest regression is one problem a class, a softmax is one problem of all classes. Problems
share the products with the features, but each has its own curvature, step and end.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as nn_f

MEMORY = 10  # pairs of steps and gradient changes
HALVINGS = 30

# scores and labels (n, P, K) -> the mean loss of each problem (P,), and the predicted shares (n, P, K)
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def softmax_loss(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the last axis."""
    logs = scores.log_softmax(dim=-1)
    return -(logs * labels).sum(dim=-1).mean(dim=0), logs.exp()


def sigmoid_loss(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, summed over the last axis (of one)."""
    return (nn_f.softplus(scores) - labels * scores).sum(dim=-1).mean(dim=0), scores.sigmoid()


class Point(NamedTuple):
    """Where P problems are."""

    weights: Tensor  # (P, K, M)
    scores: Tensor  # (n, P, K)
    value: Tensor  # (P,), penalty included
    shares: Tensor  # (n, P, K)


def minimise(
    inputs: Tensor, labels: Tensor, loss: Loss, start: Tensor, decay: Tensor, scale: Tensor, *,
    tolerance: float, slight: float, most: int,
) -> Tensor:  # fmt: skip
    """The weights of the least ``loss(inputs @ weights) + sum(decay * weights ** 2) / 2``, per problem.

    A problem ends when its gradient, measured in ``scale``, foretells a gain below ``tolerance`` of its
    value. Steps are halved until the loss falls enough (Armijo); a convex loss then has y s > 0.

    Args:
        scale: about the root of the curvature along each weight: what makes all weights alike
        slight: a value below it is as good as none: gains are no longer counted as shares of it
        most: iterations

    Shape:
        - inputs: (n, M); labels: (n, P, K); start, scale: (P, K, M); decay: (M,)
        - output: (P, K, M)

    Source:
        Nocedal & Wright 2006, algorithm 7.4
    """
    found = start.clone()
    alive = torch.arange(len(start))
    here = _at(inputs, labels, loss, start, decay)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    slope = _gradient(inputs, labels, here, decay) / scale
    for _ in range(most):
        going = _dot(slope, slope) > 2 * tolerance * here.value.clamp(min=slight)
        found[alive] = here.weights
        if not going.any():
            break
        if going.double().mean() < 0.75:  # let go of those that have ended: a copy, so not for each one
            alive, scale, slope, labels = alive[going], scale[going], slope[going], labels[:, going]
            weights, scores, value, shares = here
            here = Point(weights[going], scores[:, going], value[going], shares[:, going])
            pairs = deque(((s[going], y[going], r[going]) for s, y, r in pairs), maxlen=MEMORY)
        step = _direction(slope, pairs)
        there, taken = _search(inputs, labels, loss, here, step / scale, decay, _dot(slope, step))
        after = _gradient(inputs, labels, there, decay) / scale
        moved, change = step * taken[:, None, None], after - slope
        curved = _dot(moved, change)
        pairs.append((moved, change, torch.where(curved > 0, 1 / curved.clamp(min=1e-300), 0.0)))
        here, slope = there, after
    found[alive] = here.weights
    return found


def _at(inputs: Tensor, labels: Tensor, loss: Loss, weights: Tensor, decay: Tensor) -> Point:
    scores = _scores(inputs, weights)
    value, shares = loss(scores, labels)
    return Point(weights, scores, value + _penalty(weights, decay), shares)


def _search(
    inputs: Tensor, labels: Tensor, loss: Loss, here: Point, step: Tensor, decay: Tensor, descent: Tensor
) -> tuple[Point, Tensor]:
    """The first of step, step / 2, … that gains enough for each problem, and its share of the step.

    Scores are linear in the step: however often it is halved, there is one product.
    """
    ahead = _scores(inputs, step)  # (n, P, K)
    share = torch.ones_like(descent)
    for _ in range(HALVINGS):
        weights = here.weights + share[:, None, None] * step
        scores = here.scores + share[:, None] * ahead
        value, shares = loss(scores, labels)
        value = value + _penalty(weights, decay)
        short = value > here.value + 1e-4 * share * descent + 1e-14
        if not short.any():
            break
        share = torch.where(short, share / 2, share)
    return Point(weights, scores, value, shares), share


def _direction(slope: Tensor, pairs: "deque[tuple[Tensor, Tensor, Tensor]]") -> Tensor:
    """Minus the inverse curvature times the slope, by the two loops."""
    step, factors = slope.clone(), []
    for moved, change, inverse in reversed(pairs):
        factor = inverse * _dot(moved, step)
        step -= factor[:, None, None] * change
        factors.append(factor)
    if pairs:
        moved, change, inverse = pairs[-1]
        length = _dot(moved, change) / _dot(change, change).clamp(min=1e-300)
        step *= torch.where(inverse > 0, length, 1.0)[:, None, None]
    for (moved, change, inverse), factor in zip(pairs, reversed(factors), strict=True):
        step += (factor - inverse * _dot(change, step))[:, None, None] * moved
    return -step


def _gradient(inputs: Tensor, labels: Tensor, here: Point, decay: Tensor) -> Tensor:
    n, P, K = labels.shape
    residual = (here.shares - labels).reshape(n, P * K)
    return (residual.T @ inputs).view(P, K, -1) / n + decay * here.weights


def _scores(inputs: Tensor, weights: Tensor) -> Tensor:
    P, K, M = weights.shape
    return (inputs @ weights.reshape(P * K, M).T).view(-1, P, K)


def _penalty(weights: Tensor, decay: Tensor) -> Tensor:
    return (decay * weights**2).sum(dim=(1, 2)) / 2


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(dim=(1, 2))
