"""Trained heads side by side, for evaluation: built from the weights that their trials kept."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.base import Head
from featcache.heads.building import fresh_head, trained_head
from featcache.heads.experiment import Experiment
from featcache.heads.forms import Inputs
from featcache.heads.memory import chunks
from featcache.heads.predict import predict
from featcache.heads.stack import Stack
from featcache.heads.trial import Outcome, Trial


class Panel:
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

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (K, B, C)."""
        return self.stack.logits(inputs, None)


def answers(
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
    panels = []
    for ids in chunks(
        trials,
        lambda trial: fresh_head(trial, tasks[trial.task], cache),
        batch_size,
        cache.num_tokens,
        device,
    ):
        heads = [trained_head(asked[number], tasks[trials[number].task], cache) for number in ids]
        panels.append(Panel(ids, [trials[number] for number in ids], heads, device))
    source = experiment.source([outcome.trial for outcome in asked.values()], test=split == "test")
    return {
        number: own
        for panel, logits in predict(source, panels, rows, batch_size)
        for number, own in zip(panel.ids, logits.float().cpu().numpy(), strict=True)
    }
