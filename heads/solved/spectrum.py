"""Features standardised and turned into their principal axes: what makes linear heads quick to solve.

An L2 penalty does not see a rotation, so a solution on the axes is the solution on the features; axes
without variance get no weight in either.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CONSTANT = 1e-6  # deviation, as a share of the largest value, up to which a feature is constant
TINY = 1e-12  # share of the largest variance below which an axis is rounding


@dataclass(frozen=True)
class Spectrum:
    """Features (n, D) of the train clips on their principal axes (n, r), r at most min(n, D).

    ``energy`` is the sum of squares along each axis, (r,).
    """

    mean: Tensor  # (D,)
    sd: Tensor  # (D,), 1 where a feature is constant
    axes: Tensor  # (D, r)
    energy: Tensor  # (r,)
    features: Tensor  # (n, D), as given

    @cached_property
    def turned(self) -> Tensor:
        """The train clips on the axes, (n, r) float64, of mean zero."""
        return self.turn(self.features)

    def turn(self, features: Tensor) -> Tensor:
        """Features of any clips (m, D) on the axes, (m, r) float64."""
        return ((features.double() - self.mean) / self.sd) @ self.axes


def spectrum_of(features: Tensor) -> Spectrum:
    """Standardise by mean and standard deviation, and find the principal axes.

    Of the two Gram matrices, over features or over clips, the smaller one is taken apart.

    >>> spectrum_of(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).turned.abs()
    tensor([[1.],
            [1.]], dtype=torch.float64)
    """
    values = features.double()
    mean = values.mean(dim=0)
    sd = values.std(dim=0, correction=0)
    # A constant channel has a deviation of rounding only (of float32 means), which would be blown up to 1.
    sd = torch.where(sd > CONSTANT * values.abs().amax(dim=0), sd, torch.ones_like(sd))
    scaled = (values - mean) / sd
    n, D = scaled.shape
    over_features = n >= D
    energy, vectors = torch.linalg.eigh(scaled.T @ scaled if over_features else scaled @ scaled.T)
    kept = energy > TINY * energy[-1:].clamp(min=1e-300)
    energy, vectors = energy[kept], vectors[:, kept]
    axes = vectors if over_features else scaled.T @ (vectors / energy.sqrt())
    return Spectrum(mean, sd, axes, energy, features)
