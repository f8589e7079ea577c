"""What a probe tells a tracker: each run's settings, its epochs while it trains, its final metrics.

A tracker hears and has no say: numbers are the same with and without one, and where it fails, training goes
on without it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.cache.read.join import Say
from featcache.errors import FeatcacheError, InputError
from featcache.heads.probing.trackers import TRACKERS, Log, Numbers, Settings, Tracker
from featcache.heads.report.results import Result
from featcache.heads.training.run import Watch
from featcache.heads.training.trial import Outcome

CURVES = ("train_losses", "valid_scores")
UNSAID = (
    *CURVES, "valid", "test", "per_class", "files", "epoch", "epochs", "plateau", "kept_last", "seconds",
    "versions", "time", "cache.fingerprint", "train_per_class", "read_bytes",
)  # fmt: skip
LONG = 500  # characters of a setting; trackers refuse longer ones


def open_tracker(name: str | None, out: Path) -> Tracker | None:
    """A tracker by its name; None is none.

    Raises:
        InputError: its package is not installed.
    """
    if name is None:
        return None
    try:
        return TRACKERS[name](out)
    except ImportError as error:
        raise InputError(
            f"log {name!r} needs a package that is not here ({error}): pip install 'featcache[{name}]'",
            options=("log",),
        ) from None


class Tracking:
    """The runs of one probe in a tracker; without one nothing happens.

    As a context: runs that have no result when it ends are marked as failed.
    """

    def __init__(self, tracker: Tracker | None, say: Say) -> None:
        self.tracker, self.say = tracker, say
        self._logs: dict[str, Log] = {}
        self._told: dict[str, int] = {}  # epochs, by run

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, *_: object) -> None:
        self._safely(self._close)

    def following(self, runs: Sequence[Result], watch: Watch | None) -> Watch | None:
        """Begin to log these runs, which have no scores yet; what to call after every epoch of their pass.

        Raises:
            FeatcacheError: the tracker cannot be reached.
        """
        if self.tracker is None:
            return watch
        try:
            for run in runs:
                self._begin(run)
        except Exception as error:  # of other people's packages
            raise FeatcacheError(
                f"the tracker takes no run: {_line(error)}; mend that, or leave out log", options=("log",)
            ) from error

        def heard(epoch: int, epochs: int, outcomes: Sequence[Outcome]) -> None:
            for run, outcome in zip(runs, outcomes, strict=True):
                self._safely(self._epochs, run, outcome.losses, outcome.scores)
            if watch:
                watch(epoch, epochs, outcomes)

        return heard

    def end(self, result: Result) -> None:
        """Log what is missing of a run that has its result."""
        self._safely(self._end, result)

    def _begin(self, run: Result) -> None:
        assert self.tracker is not None  # else nothing is begun
        title = f"{run.encoder} {run['dataset']} {run.label} seed {run['seed']}"
        if run["fold"] is not None:
            title += f" fold {run['fold']}"
        metric = f"final/{'test' if run['clips']['test'] else 'valid'}/{run['metric']}"
        self._logs[run["run"]] = log = self.tracker.begin(run["run"], title, settings_of(run.line), metric)
        self._told[run["run"]] = log.known

    def _epochs(self, run: Result, losses: Sequence[float], scores: Sequence[float]) -> None:
        """Tell the epochs that were not told yet; a pass that goes on brings those before."""
        name = f"valid/{run['metric']}"
        for number in range(self._told[run["run"]] + 1, len(scores) + 1):
            values = {"train/loss": losses[number - 1], name: scores[number - 1]}
            self._logs[run["run"]].epoch(number, values)
            self._told[run["run"]] = number

    def _end(self, result: Result) -> None:
        if result["run"] not in self._logs:  # solved, or trained by several ranks
            self._begin(result)
        self._epochs(result, *(_numbers(result[curve]) for curve in CURVES))
        self._logs.pop(result["run"]).end(metrics_of(result.line))

    def _close(self) -> None:
        while self._logs:
            self._logs.popitem()[1].end(None)

    def _safely(self, call: Any, *given: Any) -> None:
        if self.tracker is None:
            return
        try:
            call(*given)
        except Exception as error:  # of other people's packages
            self.tracker = None
            self.say(f"the tracker failed and hears no more: {_line(error)}")


def settings_of(line: Mapping[str, Any]) -> Settings:
    """What a run was given, flat: ``training.batch_size``, ``options.norm``.

    >>> settings_of({"lr": 0.1, "options": {"norm": "none"}, "searched": [], "fold": None, "test": None})
    {'lr': 0.1, 'options.norm': 'none', 'searched': '[]'}
    """
    return dict(_flat(line))


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str | int | float | bool]]:
    found: list[tuple[str, str | int | float | bool]] = []
    for key, value in values.items():
        if f"{before}{key}" in UNSAID:
            continue
        if isinstance(value, Mapping):
            found += _flat(value, f"{before}{key}.")
        elif isinstance(value, int | float | str):
            found.append((f"{before}{key}", value[:LONG] if isinstance(value, str) else value))
        elif value is not None:
            found.append((f"{before}{key}", json.dumps(value)[:LONG]))
    return found


def metrics_of(line: Mapping[str, Any]) -> Numbers:
    """What came of a run: every metric of both splits, the kept epoch and the seconds.

    >>> metrics_of({"valid": {"mAP": 0.5}, "test": None, "epoch": 3, "seconds": 1.5})
    {'final/valid/mAP': 0.5, 'final/epoch': 3.0, 'final/seconds': 1.5}
    """
    found = {
        f"final/{split}/{name}": float(value)
        for split in ("valid", "test")
        for name, value in (line[split] or {}).items()
        if value is not None
    }
    return found | {f"final/{key}": float(line[key]) for key in ("epoch", "seconds") if line[key] is not None}


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def _line(error: Exception) -> str:
    """The first line of what another package says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
