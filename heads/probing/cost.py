"""What a probe will cost, before it starts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from featcache.cache.read.join import Say
from featcache.heads.data.source import clip_bytes
from featcache.heads.probing.experiment import Experiment
from featcache.heads.probing.rehearsal import in_words, seconds_an_epoch
from featcache.heads.probing.search import SearchPlan
from featcache.heads.training.memory import chunks, head_bytes
from featcache.heads.training.trial import Training, Trial, fresh_head


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of training these trials side by side once."""

    trials: int
    clips: int  # read in one epoch, train and valid, each once
    read_bytes: int  # [bytes] of the token store in one epoch
    vector_bytes: int  # [bytes] of cls and mean that lie in memory
    memory_bytes: int  # [bytes] of weights, optimizer and activations, where all fit side by side
    groups: int  # stacks that memory allows; each trains on every batch
    flops: float  # of one epoch, forward and backward of training; an estimate
    seconds: float  # of one epoch, from a few of its batches


def cost_of(experiment: Experiment, trials: Sequence[Trial], training: Training) -> Cost:
    """Estimate from shapes, and from a few batches that are trained on and forgotten."""
    cache, tasks = experiment.cache, experiment.tasks
    rows = {int(row) for task in tasks for part in (task.train, task.valid) for row in part.rows}
    needs = experiment.needs(trials)
    maps = sum(name == "tokens" for name, _ in needs)
    heads = [fresh_head(trial, tasks[trial.task], cache) for trial in trials]
    memory = sum(head_bytes(head, training.batch_size, cache.num_tokens) for head in heads)
    groups = chunks(
        dict(enumerate(trials)),
        lambda trial: fresh_head(trial, tasks[trial.task], cache),
        training.batch_size,
        cache.num_tokens,
        experiment.device,
    )
    flops = sum(
        3 * head.operations(cache.num_tokens) * len(tasks[trial.task].train)
        for trial, head in zip(trials, heads, strict=True)
    )
    return Cost(
        trials=len(trials),
        clips=len(rows),
        read_bytes=len(rows) * maps * clip_bytes(cache),
        vector_bytes=(len(needs) - maps) * len(cache) * cache.dim * 4,
        memory_bytes=memory,
        groups=len(groups),
        flops=flops,
        seconds=seconds_an_epoch(experiment, trials, training),
    )


def describe_cost(cost: Cost, epochs: int) -> list[str]:
    """The cost in lines for people.

    >>> describe_cost(Cost(trials=2, clips=100, read_bytes=3 * 10**9, vector_bytes=0,
    ...     memory_bytes=10**8, groups=1, flops=1e12, seconds=40.0), epochs=3)[1]
    'each epoch reads 100 clips once: 3.0 GB of tokens'
    """
    return [
        f"{cost.trials} trials side by side in {cost.groups} stack(s), {epochs} epochs",
        f"each epoch reads {cost.clips} clips once: {_size(cost.read_bytes)} of tokens",
        f"clip vectors in memory: {_size(cost.vector_bytes)}",
        f"weights, optimizer and activations: {_size(cost.memory_bytes)}",
        f"about {cost.flops / 1e12:.3g} TFLOP an epoch, {cost.flops * epochs / 1e12:.3g} in all",
        f"about {in_words(cost.seconds)} an epoch, at most {in_words(cost.seconds * epochs)} in all (timed)",
    ]


def estimate(
    experiment: Experiment,
    training: Training,
    bases: Sequence[Trial],
    plan: SearchPlan | None,
    count: int,
    say: Say,
) -> list[dict[str, Any]]:
    """Say what a run costs: its search, if any, and ``count`` seeds of each base.

    Returns:
        The same as records: ``phase``, ``epochs`` (the most) and the fields of ``Cost``.
    """
    records = []
    say(f"{experiment.cache.path}: {len(bases)} questions (task, layer, head)")
    for numbers in plan.rounds() if plan else ():
        kind = "Sobol" if numbers.stop <= (plan.sobol if plan else 0) else "TPE"
        cost = cost_of(experiment, [base for base in bases for _ in numbers], training)
        phase = f"search, {kind} trials {numbers.start + 1}-{numbers.stop} of each"
        records.append(_record(experiment, phase, cost, training))
        say(f"{phase} (before pruning):")
        for line in describe_cost(cost, training.epochs):
            say(f"  {line}")
    cost = cost_of(experiment, [base for base in bases for _ in range(count)], training)
    phase = f"training, {count} seed(s) of each"
    records.append(_record(experiment, phase, cost, training))
    say(f"{phase}:")
    for line in describe_cost(cost, training.epochs):
        say(f"  {line}")
    return records


def _record(experiment: Experiment, phase: str, cost: Cost, training: Training) -> dict[str, Any]:
    own = {"cache": str(experiment.cache.path), "phase": phase, "epochs": training.epochs}
    return {**own, **asdict(cost)}


def _size(count: int) -> str:
    """[bytes] in the largest unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
