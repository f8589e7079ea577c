"""How long an epoch takes here and now: a few of its batches, trained on fresh heads and thrown away."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from featcache.heads.data.loader import num_batches
from featcache.heads.data.source import Source
from featcache.heads.data.tasks import Part, Task
from featcache.heads.probing.experiment import Experiment
from featcache.heads.training.predict import predict
from featcache.heads.training.trainer import Trainer
from featcache.heads.training.trial import Training, Trial

BATCHES = 8  # at most so many are trained on, the first untimed: it compiles and fills caches
SECONDS = 3.0  # [s] after which no further one begins


def seconds_an_epoch(experiment: Experiment, trials: Sequence[Trial], training: Training) -> float:
    """[s] of training and validating once, scaled from a few batches that are read from disk."""
    most = BATCHES * training.batch_size
    tasks = [
        replace(task, train=_part(task.train, most), valid=_part(task.valid, most))
        for task in experiment.tasks
    ]
    rows = np.concatenate([part.rows for task in tasks for part in (task.train, task.valid)])
    source = Source(experiment.cache, experiment.needs(trials), rows, experiment.device, "off")
    trainer = Trainer(trials, tasks, source, training, keep=False)
    used = sorted({(trial.task, trial.seed) for trial in trials})
    steps = sum(
        num_batches(len(experiment.tasks[task].train), training.batch_size) * training.passes
        for task, _ in used
    )
    share = _share(tasks, experiment.tasks, {task for task, _ in used})
    return steps * _seconds_a_step(trainer) + _validation(trainer) / share


def in_words(seconds: float) -> str:
    """[s] in words.

    >>> in_words(0.04), in_words(48.2), in_words(1500), in_words(9000)
    ('0.04 s', '48 s', '25 min', '2.5 h')
    """
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def _part(part: Part, most: int) -> Part:
    return Part(rows=part.rows[:most], targets=part.targets[:most], ids=part.ids[:most])


def _seconds_a_step(trainer: Trainer) -> float:
    began = time.perf_counter()
    for number, _ in enumerate(trainer.steps()):  # the first is number 0
        spent = time.perf_counter() - began
        if number == 0:
            first, began = spent, time.perf_counter()
        elif number == BATCHES or spent > SECONDS:
            break
    return spent / number if number else first


def _validation(trainer: Trainer) -> float:
    began = time.perf_counter()
    rows = [task.valid.rows for task in trainer.tasks]
    for _ in predict(trainer.source, trainer.groups, rows, trainer.training.batch_size):
        pass
    return time.perf_counter() - began


def _share(few: Sequence[Task], all_: Sequence[Task], used: set[int]) -> float:
    """Of the validation clips, how many are looked at."""
    return sum(len(few[task].valid) for task in used) / sum(len(all_[task].valid) for task in used)
