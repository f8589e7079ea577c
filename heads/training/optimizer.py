"""AdamW over stacked heads, each with its own learning rate and decay, as it would be alone."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPS = 1e-8
Decay = tuple[int, int]  # the step from which a learning rate falls, and over how many steps


def cosine(step: int, steps: int, warmup: int = 0, final: float = 0.0) -> float:
    """The share of the learning rate at a step, from 0: linear warm-up, then half a cosine.

    >>> [round(cosine(step, 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    >>> cosine(0, 10, warmup=4)
    0.25
    """
    if step < warmup:
        return (step + 1) / warmup
    along = (step - warmup) / max(steps - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * along))


def falling(step: int, warmup: int, decay: Decay | None) -> float:
    """The share of a learning rate that is constant after its warm-up, until it falls linearly to zero.

    Args:
        decay: the step from which it falls, and over how many steps; None where it does not fall yet

    Source:
        "warmup-stable-decay", Hu et al. 2024, arXiv 2404.06395: the end need not be known beforehand

    >>> [falling(step, 0, (2, 4)) for step in range(7)]
    [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    if decay is None:
        return 1.0
    first, steps = decay
    return min(1.0, max(0.0, 1.0 - (step - first) / steps))


class StackedAdamW:
    """``torch.optim.AdamW`` for parameters (K, …), where row k has settings of its own.

    Args:
        lr: name -> (K,) of each parameter
        weight_decay: name -> (K,) of each parameter

    Source:
        Loshchilov & Hutter 2019, arXiv 1711.05101; the arithmetic and its order are PyTorch's
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], lr: Mapping[str, Tensor], weight_decay: Mapping[str, Tensor]
    ) -> None:
        self.parameters = dict(parameters)
        self.lr, self.weight_decay = dict(lr), dict(weight_decay)
        self.mean = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], share: Tensor) -> None:
        """One update of every row, at this share (K,) of its learning rate."""
        self.steps += 1
        first = 1 - BETAS[0] ** self.steps
        second = math.sqrt(1 - BETAS[1] ** self.steps)
        for name, value in self.parameters.items():
            gradient = gradients[name]
            rate = _rows(self.lr[name] * share, value)
            value.mul_(1 - rate * _rows(self.weight_decay[name], value))
            mean = self.mean[name].lerp_(gradient, 1 - BETAS[0])
            square = self.square[name].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            spread = square.sqrt().div_(second).add_(EPS)
            value.sub_((mean / spread).mul_(rate / first))

    def keep(self, rows: Sequence[int], parameters: Mapping[str, Tensor]) -> None:
        """Go on with these rows alone; ``parameters`` are already reduced to them."""
        self.parameters = dict(parameters)
        for state in (self.lr, self.weight_decay, self.mean, self.square):
            for name, value in state.items():
                state[name] = value[list(rows)].clone()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a resumed run needs, beside the parameters and the number of steps."""
        return {"mean": self.mean, "square": self.square}


def gradient_norms(gradients: Mapping[str, Tensor]) -> Tensor:
    """The norm of each row's gradient over all parameters, (K,)."""
    squares = [gradient.flatten(1).square().sum(dim=1) for gradient in gradients.values()]
    return torch.stack(squares).sum(dim=0).sqrt()


def clip_rows(gradients: Mapping[str, Tensor], norms: Tensor, largest: float) -> None:
    """Shorten each row's gradient to at most ``largest``, as ``clip_grad_norm_`` does for one head."""
    share = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients.values():
        gradient.mul_(_rows(share, gradient))


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
