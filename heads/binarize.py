"""Binary codes with a straight-through gradient."""

import torch
from torch import Tensor


def binarize(latent: Tensor, clip: bool = False) -> Tensor:
    """Map each value to -1 or +1; the gradient passes through unchanged.

    Zero maps to +1 (``torch.sign`` would give 0, a third code).

    Args:
        clip: let no gradient through where a value lies outside [-1, 1] (the paper does not).

    Shape:
        - latent: any
        - output: same, every value in {-1, +1}

    Source:
        Bengio et al. 2013, https://arxiv.org/abs/1308.3432

    >>> binarize(torch.tensor([-0.2, 0.0, 3.0]))
    tensor([-1.,  1.,  1.])
    """
    code = torch.ones_like(latent).masked_fill(latent.detach() < 0, -1.0)
    carrier = latent.clamp(-1, 1) if clip else latent
    return code + (carrier - carrier.detach())  # exactly code: the bracket is zero
