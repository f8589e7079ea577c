"""Channels of tokens at zero mean and unit spread, by what the train tokens were."""

from typing import Literal

import torch
from torch import Tensor, nn

Standardize = Literal["none", "channel"]


class Standardizer(nn.Module):
    """Subtract each channel's mean and divide by its standard deviation; does nothing until they are set.

    A channel that never varies is only centred: dividing by the rounding noise of a constant would make
    it the loudest of all.

    Shape:
        - mean, sd: (D,), or (layers, D) for a head that reads layers
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("sd", torch.ones(shape))

    def set(self, mean: Tensor, sd: Tensor) -> None:
        """Take the statistics of the train tokens.

        >>> own = Standardizer(2)
        >>> own.set(torch.tensor([300.0, 5.0]), torch.tensor([100.0, 0.0]))
        >>> own(torch.tensor([[400.0, 5.0]]))
        tensor([[1., 0.]])
        """
        constant = sd <= 1e-6 * mean.abs()
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(constant, 1.0, sd))

    def forward(self, vectors: Tensor) -> Tensor:
        """Tokens (B, N, D) or vectors (B, D); (B, layers, N, D) or (B, layers, D) where there are layers."""
        mean, sd = self.mean, self.sd
        if vectors.ndim == 2 + mean.ndim:  # tokens: the channel's numbers hold for each of them
            mean, sd = mean.unsqueeze(-2), sd.unsqueeze(-2)
        standard: Tensor = (vectors.to(mean.dtype) - mean).div_(sd)  # in place: fresh memory costs as much
        return standard
