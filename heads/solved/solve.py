"""Solved heads on an experiment: features once, fitted on every question, tested, written down."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from featcache.cache.read.join import Say
from featcache.devices import free_memory, threads, versions
from featcache.errors import InputError
from featcache.heads.probing.experiment import Experiment
from featcache.heads.probing.record import Logits, add_test, place, setting
from featcache.heads.registry import Choice
from featcache.heads.report.metrics import all_metrics
from featcache.heads.report.results import RESULTS, Result, append_result, digest_of, known_results
from featcache.heads.solved.choose import Solved, choose_and_fit
from featcache.heads.solved.features import PooledFeatures, feature_bytes
from featcache.heads.solved.registry import SOLVED

CPU = torch.device("cpu")
COMPARED = 100_000  # clips that knn is asked about unasked
MOST = 4e9  # [bytes] of features that a run makes unasked
COPIES = 4  # of the features, in float32: what fitting holds at once
UNUSED = (
    "loss", "lr", "weight_decay", "training", "epoch", "epochs", "plateau", "kept_last", "at_edge", "match",
    "code", "searched", "by_preset", "parameters", "read_bytes",
)  # fmt: skip
SMALL = 1 << 22  # numbers below which threads wait for each other longer than they compute


@dataclass(frozen=True)
class Setting:
    """One solved head on one question."""

    choice: Choice
    task: int  # which of the experiment's tasks
    layer: int

    def digest(self, experiment: Experiment) -> str:
        """Equal digests, equal numbers: how other heads are trained does not matter."""
        task = experiment.tasks[self.task]
        own = [self.choice.name, dict(self.choice.options), SOLVED[self.choice.name].strengths]
        asked = [*task.key, self.layer]
        return digest_of([experiment.digest, "solved", own, asked, versions()["featcache"]])


def references(experiment: Experiment, heads: Sequence[str], say: Say) -> list[Choice]:
    """What stands under every run: all solved heads on mean, ``logreg`` on tfmean and on cls, too.

    cls where ``linear`` reads it; tfmean unless the grid has one row (it would be the mean again) or it is
    too large; no ``knn`` of so many clips that comparing each with each takes minutes.
    """
    cache = experiment.cache
    names = ["mean"]
    if "linear" in heads and cache.has_cls:
        names.append("cls")
    size = feature_bytes(cache, "tfmean", len(_rows(experiment)))
    if size > MOST:
        say(
            f"logreg is not solved on tfmean: {size / 1e9:.1f} GB of features; name logreg:features=tfmean to"
        )
    elif cache.grid[0] > 1:
        names.append("tfmean")
    many = len(_rows(experiment)) > COMPARED
    others = [
        Choice(name, {"features": "mean"})
        for name in SOLVED
        if name != "logreg" and not (many and name == "knn")
    ]
    return [*(Choice("logreg", {"features": name}) for name in names), *others]


def solve_and_test(
    experiment: Experiment,
    choices: Sequence[Choice],
    layers: Sequence[int],
    out: Path,
    record: Mapping[str, Any],
    say: Say,
    hear: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Solve what ``out`` has no result of yet and test it; all results, by task, layer and choice.

    Args:
        choices: solved heads with their features; one named twice is solved once
        record: of the run that they stand beside; goes into the line alone
        hear: takes each new result

    Raises:
        InputError: the features of a choice do not fit into memory.
    """
    wanted = [
        Setting(choice, number, layer)
        for number in range(len(experiment.tasks))
        for layer in layers
        for choice in {choice.title: choice for choice in choices}.values()
    ]
    digests = [own.digest(experiment) for own in wanted]
    known = known_results(out)
    todo = {digest: own for own, digest in zip(wanted, digests, strict=True) if digest not in known}
    if len(todo) < len(wanted):
        say(f"{len(wanted) - len(todo)} of {len(wanted)} solved heads are in {out / RESULTS} already")
    if todo:
        for own in _solve_all(experiment, todo, out, record, say):
            hear(own)
            known[own["run"]] = own
    return [known[digest] for digest in digests]


def check_memory(experiment: Experiment, choices: Sequence[Choice], layers: Sequence[int]) -> None:
    """Whether features of these choices fit into memory.

    Raises:
        InputError: they do not.
    """
    count, free = len(_rows(experiment)), free_memory(CPU)
    for name in {str(choice.options["features"]) for choice in choices}:
        size = feature_bytes(experiment.cache, name, count)
        if (len(layers) + COPIES) * size > free:
            raise InputError(
                f"{name} features of {count} clips are {size / 1e9:.1f} GB a layer, and solving wants "
                f"{COPIES} times that beside them: more than the {free / 1e9:.1f} GB of free memory; choose "
                "smaller features",
                options=("heads",),
            )


def _solve_all(
    experiment: Experiment, todo: Mapping[str, Setting], out: Path, record: Mapping[str, Any], say: Say
) -> list[Result]:
    names = {(str(own.choice.options["features"]), own.layer) for own in todo.values()}
    features = PooledFeatures(experiment.cache, _rows(experiment), sorted(names))
    lines, on_test = [], []
    for run, own in todo.items():
        began = time.perf_counter()
        solved, logits, of_train = _solve(experiment, own, features)
        seconds = time.perf_counter() - began
        lines.append(_describe(experiment, own, run, solved, record, seconds))
        on_test.append((logits, of_train))
        title = f"{experiment.tasks[own.task].title} {own.choice.title}"
        say(f"{title}: {_in_words(own, solved)}, {seconds:.1f} s")
    tests = [question.test.open() if len(question.test) else None for question in experiment.questions]
    results = []
    for own, line, (logits, of_train) in zip(todo.values(), lines, on_test, strict=True):
        test, task = tests[own.task], experiment.tasks[own.task]
        if test is not None:
            add_test(line, out, logits, test, task)
            if of_train is not None:
                line["chosen"]["train_alone"] = all_metrics(of_train, test, task.kind)[task.metric]
        results.append(append_result(out, line))
    return results


def _solve(
    experiment: Experiment, own: Setting, features: PooledFeatures
) -> tuple[Solved, Logits, Logits | None]:
    """A head, its logits (n, C) of the test clips, whose labels stay sealed, and those of train alone."""
    question = experiment.questions[own.task]
    name = str(own.choice.options["features"]), own.layer
    train, valid, test = (
        features.of(name, rows)
        for rows in (question.task.train.rows, question.task.valid.rows, question.test.rows)
    )
    with threads(1 if train.numel() < SMALL else None):
        solved = choose_and_fit(SOLVED[own.choice.name], question.task, train, valid)
        return solved, solved.score(test), solved.score_of_train(test)


def _describe(
    experiment: Experiment, own: Setting, run: str, solved: Solved, record: Mapping[str, Any], seconds: float
) -> dict[str, Any]:
    """A result line as trained heads have it; what only they have is None."""
    task, knob = experiment.tasks[own.task], SOLVED[own.choice.name].knob
    return {
        "run": run,
        **setting(experiment, own.task, own.layer),
        "head": own.choice.name,
        "options": dict(own.choice.options),
        "solved": True,
        "chosen": {
            **({knob: solved.strength} if knob else {}),
            "by": solved.chosen_by,
            "clips": solved.clips,
        },
        "seed": 0,
        # How others were trained must not part rows of what is solved; whether splits may leak must.
        "protocol": {key: value for key, value in record.items() if key == "allow_leak"},
        "beside": dict(record),
        **dict.fromkeys(UNUSED),
        "valid": all_metrics(solved.on_valid, task.valid, task.kind),
        "valid_scores": [],
        "train_losses": [],
        "seconds": round(seconds, 3),
        **place(CPU),
    }


def _in_words(own: Setting, solved: Solved) -> str:
    """What was chosen, and by what.

    The rule: fewer than 100 valid clips choose too noisily, so five inner folds over train and valid do.
    """
    knob = SOLVED[own.choice.name].knob
    fitted = "train and valid" if solved.chosen_by == "inner folds" else "train"
    chosen = f"{knob} {solved.strength:g} by {solved.chosen_by}, " if knob else ""
    return f"{chosen}fitted on {solved.clips} clips of {fitted}"


def _rows(experiment: Experiment) -> "np.ndarray[Any, np.dtype[np.int64]]":
    """Every row that a question reads, each once."""
    parts = [
        rows
        for question in experiment.questions
        for rows in (question.task.train.rows, question.task.valid.rows, question.test.rows)
    ]
    return np.unique(np.concatenate(parts))
