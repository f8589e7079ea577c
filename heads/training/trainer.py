"""Many heads trained side by side from one read of the tokens, each exactly as it would be alone."""

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from featcache.devices import out_of_memory
from featcache.errors import FeatcacheError
from featcache.heads.base import Head
from featcache.heads.data.batch import Batch
from featcache.heads.data.checks import FEW_CLIPS
from featcache.heads.data.loader import Learner, num_batches, train_steps
from featcache.heads.data.moments import channel_moments
from featcache.heads.data.source import Source
from featcache.heads.data.tasks import Task
from featcache.heads.training.group import Group
from featcache.heads.training.memory import chunks
from featcache.heads.training.predict import inputs_of, predict
from featcache.heads.training.trial import Outcome, Status, Training, Trial, fresh_head
from featcache.heads.training.validation import score_stack

# (epoch from 1, score of each running trial) -> the trials to stop here
OnEpoch = Callable[[int, Mapping[int, float]], Collection[int]]


class Trainer:
    """One pass of training: every epoch reads each clip once and updates every trial.

    Args:
        tasks: what the trials' ``task`` counts
        source: reads what the trials need, see ``needs_of``
        keep: keep the best weights of each trial, not its scores alone
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        tasks: Sequence[Task],
        source: Source,
        training: Training,
        *,
        keep: bool = True,
    ) -> None:
        self.keep = keep
        self.trials, self.tasks, self.source, self.training = list(trials), list(tasks), source, training
        self.device = source.device
        self.outcomes = [Outcome(trial=trial) for trial in trials]
        self.epoch = 0
        self._moments: dict[tuple[int, str, int], tuple[Tensor, Tensor]] = {}
        self.groups = self._build()
        self._before, self._started = 0.0, time.perf_counter()

    def train(
        self, on_epoch: OnEpoch | None = None, after_epoch: Callable[[], None] | None = None
    ) -> list[Outcome]:
        """Train until every trial has ended; the outcomes are in the order of the trials.

        Args:
            on_epoch: sees the validation scores and names trials to prune
            after_epoch: called when the epoch's state is complete, e.g. to save it
        """
        while self.epoch < self.training.epochs and self.groups:
            for _ in self.steps():
                pass
            self.epoch += 1
            scores = self._evaluate()
            pruned = on_epoch(self.epoch, scores) if on_epoch else ()
            self._end(pruned)
            if after_epoch:
                after_epoch()
        return self.outcomes

    def steps(self) -> Iterator[None]:
        """Train an epoch, batch after batch."""
        size, seed = self.training.batch_size, self.training.seed
        for number in range(self.training.passes):
            kinds = sorted({_kind(group) for group in self.groups})
            learners = [Learner(self.tasks[task].train.rows, own) for task, own in kinds]
            order = self.epoch * self.training.passes + number
            for step in train_steps(self.source, learners, size, seed, order):
                kind = kinds[step.learner]
                targets = torch.from_numpy(self.tasks[kind[0]].train.targets[step.positions]).to(self.device)
                for group in [group for group in self.groups if _kind(group) == kind]:
                    self._step(group, step.batch, targets)
                yield

    def _step(self, group: Group, batch: Batch, targets: Tensor) -> None:
        try:
            group.step(inputs_of(group, batch, self.source), targets)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if not group.splittable:
                raise FeatcacheError(
                    f"out of memory on {self.device} with one {group.lead.head} alone; "
                    "use a smaller batch_size, device_cache='off', or another device",
                    options=("batch_size", "device_cache", "device"),
                ) from error
        else:
            return
        # The update comes last in a step, so nothing was changed; half the trials need half the memory.
        for half in self._split(group):
            self._step(half, batch, targets)

    def _split(self, group: Group) -> list[Group]:
        middle = len(group.ids) // 2
        second = self._group(group.ids[middle:])
        state = group.state()
        second.restore(_rows_of(state, slice(middle, None)))
        second.loss_sum, second.loss_count = group.loss_sum[middle:].clone(), group.loss_count
        group.keep(range(middle))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.groups.insert(self.groups.index(group) + 1, second)
        return [group, second]

    def _evaluate(self) -> dict[int, float]:
        """Score every running trial on valid, and remember the weights of those that got better."""
        found: dict[int, float] = {}
        rows = [task.valid.rows for task in self.tasks]
        for group, logits in predict(self.source, self.groups, rows, self.training.batch_size):
            task = self.tasks[group.lead.task]
            values = score_stack(logits, task.valid.targets, task.kind)
            losses = group.epoch_losses()
            outcomes = [self.outcomes[number] for number in group.ids]
            group.remember([row for row, own in enumerate(outcomes) if self._better(own, values[row])])
            for outcome, value, loss in zip(outcomes, values, losses, strict=True):
                if not outcome.best_at or value > outcome.scores[outcome.best_at - 1]:
                    outcome.best_at = self.epoch
                if self._better(outcome, value):
                    outcome.epoch = self.epoch
                outcome.scores.append(value)
                outcome.losses.append(loss)
            found.update(zip(group.ids, values, strict=True))
        return found

    def _better(self, outcome: Outcome, value: float) -> bool:
        """Whether this epoch's weights are the ones to keep: of equal scores, the last epoch's.

        A few held-out clips tie all the time, and the first of many equal epochs is the least trained.
        """
        if not outcome.epoch or self._keeps_last(outcome):
            return math.isfinite(value)
        return value >= outcome.score

    def _keeps_last(self, outcome: Outcome) -> bool:
        """Whether the weights at the end are kept: where asked, or where valid is too small to choose on."""
        if self.training.select == "last":
            return True
        few = len(self.tasks[outcome.trial.task].valid) < FEW_CLIPS
        return self.training.schedule == "plateau" and few

    def _end(self, pruned: Collection[int]) -> None:
        """Take out the trials that are pruned, failed, stopped early or through."""
        for group in list(self.groups):
            rows = []
            for row, number in enumerate(group.ids):
                self._schedule(group, row, self.outcomes[number])
                status = self._status(self.outcomes[number], number in pruned)
                if status is None:
                    rows.append(row)
                    continue
                outcome = self.outcomes[number]
                outcome.status, outcome.seconds = status, self.seconds
                if status == "done":
                    outcome.state = group.best_of(row)
            if not rows:
                self.groups.remove(group)
            elif len(rows) < len(group.ids):
                group.keep(rows)

    def _schedule(self, group: Group, row: int, outcome: Outcome) -> None:
        """With the schedule "plateau": begin to end a trial that no longer gets better, or has to."""
        training = self.training
        if training.schedule != "plateau" or outcome.decays_from is not None:
            return
        stalled = self.epoch >= training.min_epochs and self._stalled(outcome)
        length = max(1, round(training.decay * self.epoch))
        if stalled or self.epoch + length >= training.epochs:
            outcome.decays_from, outcome.plateau = self.epoch, stalled
            group.begin_decay(row, length)

    def _stalled(self, outcome: Outcome) -> bool:
        patience = self.training.patience
        return patience is not None and self.epoch - outcome.best_at >= patience

    def _status(self, outcome: Outcome, pruned: bool) -> Status | None:
        """How a trial ends after this epoch; None where it goes on."""
        if not math.isfinite(outcome.losses[-1]) or not math.isfinite(outcome.scores[-1]):
            return "failed"
        if pruned:
            return "pruned"
        if self.training.schedule == "plateau":
            begun = outcome.decays_from
            ended = begun is not None and self.epoch >= begun + max(1, round(self.training.decay * begun))
        else:
            ended = self._stalled(outcome)
        return "done" if ended or self.epoch >= self.training.epochs else None

    @property
    def seconds(self) -> float:
        """[s] that the pass has taken, over interruptions."""
        return self._before + time.perf_counter() - self._started

    def state(self) -> dict[str, Any]:
        """Where the pass stands after an epoch: tensors and plain values, for ``torch.save``."""
        ended = [{**vars(outcome), "trial": None} for outcome in self.outcomes]
        return {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "outcomes": ended,
            "groups": [group.state() for group in self.groups],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state`` of a pass with the same trials."""
        self.epoch, self._before = state["epoch"], state["seconds"]
        for outcome, known in zip(self.outcomes, state["outcomes"], strict=True):
            vars(outcome).update(known, trial=outcome.trial)
        self.groups = []
        for known in state["groups"]:
            group = self._group(known["ids"])
            group.restore(known)
            self.groups.append(group)

    def _build(self) -> list[Group]:
        cache, numbered = self.source.cache, dict(enumerate(self.trials))
        size = self.training.batch_size
        return [self._group(ids) for ids in chunks(numbered, self._head, size, cache.num_tokens, self.device)]

    def _group(self, ids: Sequence[int]) -> Group:
        trials = [self.trials[number] for number in ids]
        clips = len(self.tasks[trials[0].task].train)
        steps = num_batches(clips, self.training.batch_size) * self.training.passes
        heads = [self._head(trial) for trial in trials]
        return Group(ids, trials, heads, self.training, steps, self.device, self.keep)

    def _head(self, trial: Trial) -> Head:
        head = fresh_head(trial, self.tasks[trial.task], self.source.cache)
        if head.standardizes:
            key = (trial.task, head.reads, trial.layer)
            if key not in self._moments:
                rows = self.tasks[trial.task].train.rows
                self._moments[key] = channel_moments(self.source, rows, head.reads, trial.layer)
            head.standardizer.set(*self._moments[key])
        return head


def _kind(group: Group) -> tuple[int, int]:
    """Task and seed: what decides which clips the group sees, and in which order."""
    return group.lead.task, group.lead.seed


def _rows_of(state: Mapping[str, Any], rows: slice) -> dict[str, Any]:
    """The part of a group's state that belongs to these rows."""
    parts = {
        part: {name: value[rows] for name, value in state[part].items()}
        for part in ("weights", "best", "mean", "square")
    }
    return {**state, **parts, "decays": state["decays"][rows]}
