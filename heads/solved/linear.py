"""Linear heads of one path of penalties."""

from dataclasses import dataclass

import torch
from torch import Tensor

from featcache.heads.solved.spectrum import Spectrum


@dataclass(frozen=True)
class LinearPath:
    """S linear heads on the axes of a spectrum: one a strength of the penalty."""

    spectrum: Spectrum
    weights: Tensor  # (S, C, r)
    bias: Tensor  # (S, C)

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (S, m, C) of clips' features (m, D)."""
        return torch.einsum("mr,scr->smc", self.spectrum.turn(features), self.weights) + self.bias[:, None]

    @property
    def coefficients(self) -> Tensor:
        """The weights of standardised features, (S, C, D)."""
        return self.weights @ self.spectrum.axes.T
