"""Trained heads side by side, for evaluation: built from the weights that their trials kept."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.base import Head, Inputs
from featcache.heads.probing.experiment import Experiment
from featcache.heads.training.memory import chunks
from featcache.heads.training.predict import predict
from featcache.heads.training.stack import Stack
from featcache.heads.training.trial import Outcome, Trial, fresh_head, trained_head


class TrainedGroup:
    """Heads of one shape, stacked, that only answer.

    Args:
        ids: the caller's number of each head
    """

    def __init__(
        self, ids: Sequence[int], trials: Sequence[Trial], heads: Sequence[Head], device: torch.device
    ):
        self.ids, self.trials, self.heads = list(ids), list(trials), list(heads)
        self.stack = Stack(heads, device)

    @property
    def lead(self) -> Trial:
        """Any trial: what they share can be read from it."""
        return self.trials[0]

    @property
    def head(self) -> Head:
        """One of the heads: what they share can be read from it."""
        return self.stack.template

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (K, B, C)."""
        return self.stack.logits(inputs, None)


def predictions(
    experiment: Experiment, outcomes: Sequence[Outcome], split: Literal["valid", "test"], batch_size: int
) -> dict[int, NDArray[np.float32]]:
    """Logits (n, C) of each trained head on the clips of a split of its task; none where it is empty."""
    rows = [
        question.test.rows if split == "test" else question.task.valid.rows
        for question in experiment.questions
    ]
    asked = {
        number: outcome
        for number, outcome in enumerate(outcomes)
        if outcome.state is not None and len(rows[outcome.trial.task])
    }
    if not asked:
        return {}
    cache, tasks, device = experiment.cache, experiment.tasks, experiment.device
    trials = {number: outcome.trial for number, outcome in asked.items()}
    groups = []
    for ids in chunks(
        trials,
        lambda trial: fresh_head(trial, tasks[trial.task], cache),
        batch_size,
        cache.num_tokens,
        device,
    ):
        heads = [trained_head(asked[number], tasks[trials[number].task], cache) for number in ids]
        groups.append(TrainedGroup(ids, [trials[number] for number in ids], heads, device))
    source = experiment.source([outcome.trial for outcome in asked.values()], test=split == "test")
    return {
        number: own
        for group, logits in predict(source, groups, rows, batch_size)
        for number, own in zip(group.ids, logits.float().cpu().numpy(), strict=True)
    }
