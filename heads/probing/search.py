"""Search for each head's learning rate and weight decay, all studies in one pass a round.

The search receives tasks, which hold no test labels. Every trial is a line of ``trials.jsonl``; a
search that was cut off is replayed from these lines up to its last whole round and goes on there.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featcache.cache.read.join import Say
from featcache.devices import versions
from featcache.files import parse_json
from featcache.heads.probing.experiment import Experiment
from featcache.heads.probing.rehearsal import in_words
from featcache.heads.probing.study import Ranges, Study
from featcache.heads.report.results import digest_of
from featcache.heads.training.distributed import Ranks
from featcache.heads.training.resume import forget
from featcache.heads.training.rng import mixed_seed
from featcache.heads.training.run import Watch, run_pass
from featcache.heads.training.trial import Outcome, Training, Trial
from featcache.jsonl import append_lines, encode, records

TRIALS = "trials.jsonl"


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How a search goes: ``sobol`` trials side by side, then ``tpe`` in rounds of ``width``."""

    sobol: int = 25
    tpe: int = 25
    width: int = 5  # proposals between which TPE learns nothing; our choice
    beyond: int = 0  # learning rates that are tried past an end of their range, where the best lies there
    seed: int = 0

    def rounds(self) -> Iterator[range]:
        """The numbers of the trials of each round.

        >>> list(SearchPlan(sobol=4, tpe=5, width=3).rounds())
        [range(0, 4), range(4, 7), range(7, 9)]
        """
        total = self.sobol + self.tpe
        if self.sobol:
            yield range(self.sobol)
        for start in range(self.sobol, total, self.width):
            yield range(start, min(start + self.width, total))


def rungs(epochs: int) -> tuple[int, int]:
    """Where successive halving compares: after a fifth of the epochs, then each time they double.

    The paper names successive halving and no numbers; these are ours.
    """
    return max(1, epochs // 5), 2


class _Search:
    """One study with what its trials have in common and what is known of them."""

    def __init__(self, base: Trial, ranges: Ranges, plan: SearchPlan, training: Training, name: str) -> None:
        self.base, self.name = base, name
        seed = mixed_seed(plan.seed, int(name, 16))
        self.study = Study(ranges, sobol=plan.sobol, seed=seed, rungs=rungs(training.epochs))
        self.outcomes: list[Outcome] = []

    def propose(self, count: int) -> list[Trial]:
        return [_with(self.base, own) for own in self.study.ask(count)]

    def widen(self, count: int) -> bool:
        """Whether the next ``count`` trials lie beyond the range: where the best lies at its edge."""
        if self.best is None:
            return False
        trial = self.best.trial
        own = {name: trial.options.get(name, getattr(trial, name, None)) for name in self.study.space}
        return self.study.widen(own, count)

    def take(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.study.end(len(self.outcomes), outcome)
            self.outcomes.append(outcome)

    @property
    def best(self) -> Outcome | None:
        """The trial with the best validation score; the first of equals; None where all failed."""
        done = [outcome for outcome in self.outcomes if outcome.status == "done"]
        return max(done, key=lambda outcome: outcome.score, default=None)


def _with(base: Trial, settings: Mapping[str, Any]) -> Trial:
    """A trial with what was proposed: its own fields, and options of its head."""
    own = {name: value for name, value in settings.items() if name not in base.searched}
    options = {name: settings[name] for name in base.searched}
    return replace(base, **own, options={**base.options, **options})


def search(
    experiment: Experiment,
    bases: Sequence[tuple[Trial, Ranges]],
    training: Training,
    plan: SearchPlan,
    out: Path,
    *,
    ranks: Ranks,
    say: Say,
    watch: Watch | None = None,
) -> list[Outcome | None]:
    """The best trial of each study.

    Args:
        bases: for each study a trial with its fixed settings, and the ranges of the others
    """
    searches = []
    for base, ranges in bases:
        task = experiment.tasks[base.task]
        own = [base.identity, *task.key, ranges, asdict(plan), asdict(training), versions()]
        searches.append(_Search(base, ranges, plan, training, digest_of([experiment.digest, own])))
    known = _read_trials(out / TRIALS)
    rounds, began = list(plan.rounds()), time.perf_counter()
    for part, numbers in enumerate(rounds, start=1):
        spent = time.perf_counter() - began
        left = spent / numbers.start * (rounds[-1].stop - numbers.start) if numbers.start else None
        end = "" if left is None else f", about {in_words(left)} left to search"
        say(f"search, part {part} of {len(rounds)}: {len(numbers)} trials of each head{end}")
        _round(experiment, searches, numbers, training, out, known, ranks, watch)
    if plan.beyond:
        total = plan.sobol + plan.tpe
        at_edge = [own for own in searches if own.widen(plan.beyond)]
        _round(experiment, at_edge, range(total, total + plan.beyond), training, out, known, ranks, watch)
    return [own.best for own in searches]


def _round(
    experiment: Experiment,
    searches: Sequence[_Search],
    numbers: range,
    training: Training,
    out: Path,
    known: Mapping[tuple[str, int], Mapping[str, Any]],
    ranks: Ranks,
    watch: Watch | None,
) -> None:
    """One round of every study: those on record are replayed, the others train side by side."""
    fresh = []
    for own in searches:
        trials = own.propose(len(numbers))
        if all((own.name, number) in known for number in numbers):
            lines = [known[own.name, number] for number in numbers]
            outcomes = [_outcome(trial, line) for trial, line in zip(trials, lines, strict=True)]
            _replay(own.study, numbers, outcomes)
            own.take(outcomes)
        else:
            fresh.append((own, trials))
    if not fresh:
        return
    together = [trial for _, trials in fresh for trial in trials]

    def on_epoch(epoch: int, scores: Mapping[int, float]) -> set[int]:
        stopped = set()
        for position, (own, trials) in enumerate(fresh):
            first = position * len(trials)
            heard = {
                numbers[index]: scores[first + index]
                for index in range(len(trials))
                if first + index in scores
            }
            stopped |= {first + number - numbers[0] for number in own.study.hear(epoch, heard)}
        return stopped

    state = out / "state" / digest_of([[own.name for own, _ in fresh], list(numbers)])
    outcomes = run_pass(
        experiment, together, training, state=state, ranks=ranks, on_epoch=on_epoch, watch=watch, keep=False
    )
    for position, (own, trials) in enumerate(fresh):
        mine = outcomes[position * len(trials) : (position + 1) * len(trials)]
        if ranks.first:
            _write_trials(out / TRIALS, experiment, own.name, numbers, mine)
        own.take(mine)
    if ranks.first:
        forget(state)


def _replay(study: Study, numbers: range, outcomes: Sequence[Outcome]) -> None:
    for epoch in range(1, 1 + max(len(outcome.scores) for outcome in outcomes)):
        pairs = zip(numbers, outcomes, strict=True)
        study.hear(epoch, {n: own.scores[epoch - 1] for n, own in pairs if len(own.scores) >= epoch})


def _outcome(trial: Trial, line: Mapping[str, Any]) -> Outcome:
    def known(values: Sequence[float | None]) -> list[float]:
        return [math.nan if value is None else value for value in values]

    return Outcome(
        trial=trial,
        status=line["status"],
        scores=known(line["scores"]),
        losses=known(line["losses"]),
        epoch=line["epoch"],
        seconds=line["seconds"],
    )


def _read_trials(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Trials on record by study and number; lines that are none are passed over, and trained again."""
    return {(line["study"], line["number"]): line for line in records(path) if _is_trial(line)}


def _with_check(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line with a digest of itself: one wrong digit of a score would choose another trial."""
    plain = parse_json(encode(line).encode())
    return {**plain, "check": digest_of(plain)}


def _is_trial(line: Mapping[str, Any]) -> bool:
    if line.get("check") != digest_of({name: value for name, value in line.items() if name != "check"}):
        return False
    curves = [line.get("scores"), line.get("losses")]
    return (
        isinstance(line.get("study"), str)
        and type(line.get("number")) is int
        and line.get("status") in ("done", "pruned", "failed")
        and type(line.get("epoch")) is int
        and isinstance(line.get("seconds"), int | float)
        and all(isinstance(curve, list) and all(map(_is_score, curve)) for curve in curves)
    )


def _is_score(value: object) -> bool:
    return value is None or isinstance(value, int | float)


def _write_trials(
    path: Path, experiment: Experiment, study: str, numbers: range, outcomes: Sequence[Outcome]
) -> None:
    lines = []
    for number, outcome in zip(numbers, outcomes, strict=True):
        task = experiment.tasks[outcome.trial.task]
        own = {
            "study": study,
            "number": number,
            "dataset": task.name,
            "fold": task.fold,
            "shots": task.shots,
            "metric": task.metric,
        }
        ended = {name: getattr(outcome, name) for name in ("status", "epoch", "seconds", "scores", "losses")}
        lines.append(_with_check({**own, **asdict(outcome.trial), **ended}))
    append_lines(path, lines)
