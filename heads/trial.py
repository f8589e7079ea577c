"""What is trained: one head with one setting, and what all heads of a pass have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One head to be trained: its family, what it reads, its optimiser and its seed."""

    head: str
    task: int  # which of the pass's tasks
    layer: int  # which layer's tokens
    lr: float
    weight_decay: float
    loss: str
    seed: int = 0  # of the initial weights and of dropout
    options: Mapping[str, Any] = field(default_factory=dict)  # of the head

    @property
    def shape(self) -> tuple[object, ...]:
        """Trials that agree in this can be stacked."""
        return self.head, self.task, self.layer, self.loss, tuple(sorted(self.options.items()))


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every head of a pass is trained."""

    epochs: int = 30
    batch_size: int = 128
    seed: int = 0  # of the order of clips, which all heads of a pass share
    warmup_epochs: float = 0.0  # linear, from zero
    final_lr: float = 0.0  # where the cosine ends, as a share of the learning rate
    clip_norm: float | None = None  # largest norm of one head's gradient
    patience: int | None = None  # epochs without a better validation score before a head stops
    select: Literal["best", "last"] = "best"  # which epoch's weights are kept


Status = Literal["done", "pruned", "failed"]


@dataclass(kw_only=True)
class Outcome:
    """What became of a trial."""

    trial: Trial
    status: Status = "done"
    scores: list[float] = field(default_factory=list)  # on valid, one an epoch
    losses: list[float] = field(default_factory=list)  # on train, the mean of an epoch
    epoch: int = 0  # the one whose weights are kept, from 1
    state: dict[str, Any] | None = None  # its weights, on the CPU
    seconds: float = 0.0  # [s] of the pass until the trial ended

    @property
    def score(self) -> float:
        """On valid, at the epoch that was kept."""
        return self.scores[self.epoch - 1] if self.epoch else float("nan")
