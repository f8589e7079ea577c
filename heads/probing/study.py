"""The search for one head on one task: Sobol points, then TPE, with successive halving.

An optuna study in memory, seeded per trial number: asked in the same order it proposes the same
trials, so a search that was cut off is replayed from its recorded scores and goes on unchanged.
"""

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, QMCSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from featcache.heads.training.rng import mixed_seed
from featcache.heads.training.trial import Outcome

Range = tuple[float, float]
Words = tuple[str, ...]
Ranges = Mapping[str, Range | Words]
EDGE = 0.1  # of a range, in logarithms: a best trial so near to its end may have a better one beyond


def edge_of(value: float, bounds: Range) -> int:
    """At which end of a range a value lies: -1 or 1, or 0 for neither.

    >>> [edge_of(lr, (1e-4, 1e-1)) for lr in (1e-4, 3e-3, 9e-2)]
    [-1, 0, 1]
    """
    low, high = map(math.log, bounds)
    place = (math.log(value) - low) / (high - low)
    return (place > 1 - EDGE) - (place < EDGE)


def widened(bounds: Range, edge: int) -> Range:
    """A range with one more decade at one end.

    >>> widened((1e-3, 1e-1), 1)
    (0.001, 1.0)
    """
    low, high = bounds
    return (low / 10, high) if edge < 0 else (low, high * 10)


class Study:
    """Proposes settings, hears scores after every epoch, and says which trials to stop.

    Args:
        ranges: what is searched: numbers log-uniformly, or one of some words
        sobol: how many trials are Sobol points; later ones are TPE's
        rungs: the first epoch at which trials are compared, and the factor to the next
    """

    def __init__(self, ranges: Ranges, *, sobol: int, seed: int, rungs: tuple[int, int] = (6, 2)) -> None:
        self.words = {name: own for name, own in ranges.items() if isinstance(own[0], str)}
        self.space = {name: _distribution(own) for name, own in ranges.items()}
        self.sobol, self.seed = sobol, seed
        self.trials: list[optuna.Trial] = []
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=rungs[0], reduction_factor=rungs[1])
        self._points = _sobol(self.space, seed)
        with _quiet():
            self.study = optuna.create_study(direction="maximize", sampler=self._points, pruner=pruner)

    def ask(self, count: int) -> list[dict[str, Any]]:
        """The settings of the next ``count`` trials."""
        return [self._ask() for _ in range(count)]

    def _ask(self) -> dict[str, Any]:
        number = len(self.trials)
        self.study.sampler = self._points if number < self.sobol else _tpe(mixed_seed(self.seed, number))
        trial = self.study.ask(self.space)
        self.trials.append(trial)
        return {name: self._value(name, float(trial.params[name])) for name in self.space}

    def _value(self, name: str, number: float) -> Any:
        """A setting as it is used: a word is drawn as a number, because Sobol points have no words."""
        if name not in self.words:
            return number
        words = self.words[name]
        return words[min(int(number), len(words) - 1)]

    def _number(self, name: str, value: Any) -> float:
        return self.words[name].index(value) + 0.5 if name in self.words else value

    def widen(self, best: Mapping[str, Any], count: int) -> bool:
        """Where the best learning rate lies at an end of its range, propose ``count`` beyond it next.

        They lie evenly over one more decade, with the other settings of the best.

        Args:
            best: the settings of the best trial so far
        """
        space = self.space.get("lr")
        if space is None:  # it was given, not searched
            return False
        bounds = (space.low, space.high)
        edge = edge_of(best["lr"], bounds)
        if not edge:
            return False
        low, high = widened(bounds, edge)
        self.space["lr"] = FloatDistribution(low, high, log=True)
        start = bounds[0] if edge < 0 else bounds[1]
        others = {name: self._number(name, value) for name, value in best.items()}
        for step in range(1, count + 1):
            lr = min(max(start * 10 ** (edge * step / count), low), high)
            self.study.enqueue_trial({**others, "lr": lr})
        return True

    def hear(self, epoch: int, scores: Mapping[int, float]) -> set[int]:
        """Take the scores of running trials, by number, after an epoch; the trials to stop.

        In the order of their numbers: each is compared with those before it, as if they had been
        run one after another.
        """
        stopped = set()
        for number in sorted(scores):
            self.trials[number].report(scores[number], epoch)
            if self.trials[number].should_prune():
                stopped.add(number)
        return stopped

    def end(self, number: int, outcome: Outcome) -> None:
        """A trial has ended."""
        state = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        value = outcome.score if outcome.status == "done" else None
        with _quiet():
            self.study.tell(self.trials[number], value, state[outcome.status])


def _distribution(own: Range | Words) -> FloatDistribution:
    low, high = own[0], own[1]
    if isinstance(low, str) or isinstance(high, str):
        return FloatDistribution(0, len(own))
    return FloatDistribution(low, high, log=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without optuna's own lines, and with its verbosity as it was before: that is the user's."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _sobol(space: dict[str, BaseDistribution], seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # optuna calls this sampler experimental; its points are Sobol's all the same.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _Sobol(space, qmc_type="sobol", scramble=True, seed=seed % 2**32)


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials of a round run side by side: those not yet scored count as bad, so that the next
        # proposals keep away from them.
        return TPESampler(seed=seed % 2**32, n_startup_trials=0, multivariate=True, constant_liar=True)


class _Sobol(QMCSampler):  # type: ignore[misc]  # optuna's types are not read
    """optuna's sampler, told its space beforehand: it would draw the first trials at random instead."""

    def __init__(self, space: dict[str, BaseDistribution], **settings: Any) -> None:
        super().__init__(**settings)
        self._space = space

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._space
