"""Trials of one shape on their way: weights, optimizer, and the best weights so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from featcache.heads.base import Head, Inputs
from featcache.heads.training.losses import build_loss
from featcache.heads.training.optimizer import (
    Decay,
    StackedAdamW,
    clip_rows,
    cosine,
    falling,
    gradient_norms,
)
from featcache.heads.training.rng import Streams
from featcache.heads.training.stack import Stack
from featcache.heads.training.trial import Training, Trial


class Group:
    """K trials that train as one stack, each as it would alone.

    Args:
        ids: the number of each trial in its pass
        heads: one freshly built head per trial
        epoch_steps: batches in an epoch of the trials' task
        keep: keep the best weights, not the scores alone
    """

    def __init__(
        self,
        ids: Sequence[int],
        trials: Sequence[Trial],
        heads: Sequence[Head],
        training: Training,
        epoch_steps: int,
        device: torch.device,
        keep: bool = True,
    ) -> None:
        self.ids, self.trials, self.training, self.device = list(ids), list(trials), training, device
        self.epoch_steps = epoch_steps
        rates = [_rates(head, trial) for head, trial in zip(heads, trials, strict=True)]
        self.stack = Stack(heads, device)
        lr, decay = (
            {name: torch.tensor([rate[name][side] for rate in rates], device=device) for name in rates[0]}
            for side in (0, 1)
        )
        self.optimizer = StackedAdamW(self.stack.parameters, lr, decay)
        self.loss = torch.vmap(build_loss(trials[0].loss), in_dims=(0, None))
        best = self.stack.state() if keep else {}
        self.best = {name: value.clone() for name, value in best.items()}
        self.decays: list[Decay | None] = [None] * len(ids)
        self.loss_sum = torch.zeros(len(ids), device=device)
        self.loss_count = 0

    @property
    def lead(self) -> Trial:
        """Any trial: what they share can be read from it."""
        return self.trials[0]

    @property
    def head(self) -> Head:
        """One of the heads: what they share can be read from it."""
        return self.stack.template

    @property
    def splittable(self) -> bool:
        return len(self.ids) > 1

    def step(self, inputs: Inputs, targets: Tensor) -> None:
        """One update of every trial on one batch."""
        streams = Streams([trial.seed for trial in self.trials], self.optimizer.steps, self.device)
        losses = self.loss(self.stack.logits(inputs, streams), targets) + self.stack.penalties()  # (K,)
        names, values = zip(*self.stack.parameters.items(), strict=True)
        gradients = dict(zip(names, torch.autograd.grad(losses.sum(), values), strict=True))
        if self.training.clip_norm is not None:
            clip_rows(gradients, gradient_norms(gradients), self.training.clip_norm)
        self.optimizer.step(gradients, torch.tensor(self._shares(), device=self.device))
        self.loss_sum += losses.detach()
        self.loss_count += 1

    def _shares(self) -> list[float]:
        """The share of its learning rate that each trial has at this step."""
        step, training = self.optimizer.steps, self.training
        warmup = round(training.warmup_epochs * self.epoch_steps)
        if training.schedule == "cosine":
            steps = training.epochs * self.epoch_steps
            return [cosine(step, steps, warmup, training.final_lr)] * len(self.ids)
        return [falling(step, warmup, decay) for decay in self.decays]

    def begin_decay(self, row: int, epochs: int) -> None:
        """Let a trial's learning rate fall to zero over the next epochs."""
        self.decays[row] = (self.optimizer.steps, epochs * self.epoch_steps)

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (K, B, C) of evaluation."""
        return self.stack.logits(inputs, None)

    def epoch_losses(self) -> list[float]:
        """The mean training loss of each trial since this was last asked; not finite is a failure."""
        losses = (self.loss_sum / max(self.loss_count, 1)).tolist()
        self.loss_sum.zero_()
        self.loss_count = 0
        return [float(loss) for loss in losses]

    def remember(self, rows: Sequence[int]) -> None:
        """Take the weights of these trials as their best so far."""
        state = self.stack.state()
        for name, value in self.best.items() if rows else ():
            value[list(rows)] = state[name][list(rows)]

    def best_of(self, row: int) -> dict[str, Tensor] | None:
        """The best weights of one trial, on the CPU; None where none are kept."""
        return {name: value[row].cpu().clone() for name, value in self.best.items()} or None

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these trials alone."""
        self.ids = [self.ids[row] for row in rows]
        self.trials = [self.trials[row] for row in rows]
        self.decays = [self.decays[row] for row in rows]
        self.stack.keep(rows)
        self.optimizer.keep(rows, self.stack.parameters)
        self.best = {name: value[list(rows)].clone() for name, value in self.best.items()}
        self.loss_sum = self.loss_sum[list(rows)].clone()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; tensors and plain values only."""
        return {
            "ids": self.ids,
            "steps": self.optimizer.steps,
            "decays": self.decays,
            "weights": self.stack.state(),
            "best": self.best,
            **self.optimizer.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``; the group holds the same trials."""
        own = self.state()
        with torch.no_grad():
            for part in ("weights", "best", "mean", "square"):
                for name, value in own[part].items():
                    value.copy_(state[part][name])
        self.optimizer.steps = state["steps"]
        self.decays = list(state["decays"])


def _rates(head: Head, trial: Trial) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter, as the head itself divides them."""
    groups = head.param_groups(trial.lr, trial.weight_decay)
    known = {id(value): (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    return {name: known[id(value)] for name, value in head.named_parameters()}
