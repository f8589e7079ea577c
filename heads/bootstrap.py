"""How sure is a metric: confidence intervals from clips drawn with replacement."""

from collections.abc import Callable

import numpy as np

from featcache.heads.metrics import Array


def bootstrap(
    metric: Callable[[Array, Array], float],
    labels: Array,
    scores: Array,
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a metric over resampled clips; the same seed gives the same interval.

    It covers the luck of the test clips, not that of training: for that, train several seeds.

    Source:
        Efron 1979, https://doi.org/10.1214/aos/1176344552

    >>> labels, scores = np.eye(2)[[0, 1] * 50], np.eye(2)[[0, 1] * 45 + [1, 0] * 5]
    >>> low, high = bootstrap(lambda y, s: float((y == s).all(axis=1).mean()), labels, scores)
    >>> 0.8 < low < 0.9 < high < 1.0
    True
    """
    generator = np.random.default_rng(seed)
    n = len(labels)
    rows = (generator.integers(0, n, n) for _ in range(draws))
    values = np.array([metric(labels[row], scores[row]) for row in rows])
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
