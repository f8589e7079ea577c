"""Losses on logits, each averaged over everything it sees: ``LOSSES`` is the table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.errors import InputError, unknown

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """Every class its own yes-or-no question."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn_f.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


@dataclass(frozen=True, kw_only=True)
class Asymmetric:
    """Binary cross-entropy that lets easy answers fade, negatives faster than positives.

    Args:
        gamma_negative: exponent of the probability given to an absent class.
        gamma_positive: exponent of the probability withheld from a present class.
        clip: an absent class given less than this costs nothing.
        through_focus: let the gradient through the fading factor too. Like the reference's
            training runs and the paper's authors, we do not.

    Source:
        Ridnik et al. 2021, arXiv 2009.14119, equations 4 to 7. Averaged over clips and classes,
        where the reference sums; AdamW does not see the difference.
    """

    gamma_negative: float = 4.0
    gamma_positive: float = 1.0
    clip: float = 0.05
    through_focus: bool = False

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        present = targets.to(logits.dtype)
        absent = 1 - present
        chance = torch.sigmoid(logits)
        denied = (1 - chance + self.clip).clamp(max=1)
        tiny = 1e-8
        surprise = present * chance.clamp(min=tiny).log() + absent * denied.clamp(min=tiny).log()
        with torch.set_grad_enabled(self.through_focus and torch.is_grad_enabled()):
            focus = self._focus(chance, denied, present, absent)
        return -(surprise * focus).mean()

    def _focus(self, chance: Tensor, denied: Tensor, present: Tensor, absent: Tensor) -> Tensor:
        exponent = self.gamma_positive * present + self.gamma_negative * absent
        return (1 - (chance * present + denied * absent)).pow(exponent)


@dataclass(frozen=True, kw_only=True)
class Focal:
    """Binary cross-entropy that fades with the probability of the right answer.

    Args:
        alpha: share of the positive answers in the sum, None for equal shares.

    Source:
        Lin et al. 2017, arXiv 1708.02002, equation 5
    """

    gamma: float = 2.0
    alpha: float | None = 0.25

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        present = targets.to(logits.dtype)
        surprise = nn_f.binary_cross_entropy_with_logits(logits, present, reduction="none")
        loss = surprise * (1 - torch.exp(-surprise)).pow(self.gamma)
        if self.alpha is not None:
            loss = loss * (self.alpha * present + (1 - self.alpha) * (1 - present))
        return loss.mean()


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    """One class a clip. Targets are class numbers (B,), or label rows (B, C) that sum to one."""

    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if targets.ndim == logits.ndim:
            targets = targets.to(logits.dtype)
        return nn_f.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


LOSSES: dict[str, Callable[..., Loss]] = {
    "bce": BinaryCrossEntropy,
    "asymmetric": Asymmetric,  # 4, 1, 0.05: its authors' values, and Bird-MAE's
    "asymmetric-light": partial(Asymmetric, gamma_negative=1.0, gamma_positive=0.0, clip=0.0),  # BAT's
    "cross-entropy": CrossEntropy,
    "focal": Focal,
}


# Of tasks in which a clip has exactly one class; the other losses take any number.
SINGLE = ("cross-entropy",)


def check_loss(name: str, kind: str) -> None:
    """Refuse a loss that is for the other kind of task.

    Raises:
        InputError: it is.

    >>> check_loss("bce", "multi-label")
    """
    own = "single-label" if name in SINGLE else "multi-label"
    if own != kind:
        fitting = ", ".join(sorted(other for other in LOSSES if (other in SINGLE) != (name in SINGLE)))
        raise InputError(
            f"loss {name!r} is for {own} tasks, and this one is {kind}; take {fitting}, or say task {own}",
            options=("loss", "task"),
        )


def build_loss(name: str, **options: Any) -> Loss:
    """A callable (logits, targets) -> scalar.

    Raises:
        InputError: no loss of that name, or an option that it does not have.

    >>> build_loss("bce")(torch.zeros(2, 3), torch.ones(2, 3))
    tensor(0.6931)
    """
    if name not in LOSSES:
        raise unknown("loss", name, sorted(LOSSES))
    try:
        return LOSSES[name](**options)
    except TypeError as error:
        raise InputError(f"loss {name!r} cannot be built with {options}: {error}") from error
