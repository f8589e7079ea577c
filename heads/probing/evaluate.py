"""The end of a run: trained heads meet the test split, once, and are written down."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from featcache.devices import versions
from featcache.heads.checkpoint import save
from featcache.heads.data.tasks import Task
from featcache.heads.matching.match import ENGINES, chosen
from featcache.heads.predicting.decide import best_thresholds
from featcache.heads.probing.experiment import Experiment
from featcache.heads.probing.predictions import predictions
from featcache.heads.probing.presets import preset_named
from featcache.heads.probing.record import Logits, add_test, place, setting
from featcache.heads.probing.study import edge_of, widened
from featcache.heads.report.metrics import all_metrics
from featcache.heads.report.results import Result, append_result, digest_of
from featcache.heads.training.trial import Outcome, Training, Trial, fresh_head, trained_head
from featcache.output import file_name

UNSAID = ("per_class", "train_per_class", "files")  # of a line, in the file of a head


def run_digest(experiment: Experiment, trial: Trial, training: Training, protocol: Mapping[str, Any]) -> str:
    """What a run is of: equal digests, equal numbers (on one machine)."""
    task = experiment.tasks[trial.task]
    own = {**trial.identity, "task": task.key}
    how = [asdict(training), dict(protocol), form_for(experiment), versions()["featcache"]]
    return digest_of([experiment.digest, own, *how])


def evaluate(
    experiment: Experiment,
    outcomes: Sequence[Outcome],
    training: Training,
    out: Path,
    protocol: Mapping[str, Any],
) -> list[Result]:
    """Test the trained heads, save them and append their results; here the test labels are opened.

    Args:
        protocol: how the hyperparameters were chosen; goes into the digest and the line
    """
    on_valid = predictions(experiment, outcomes, "valid", training.batch_size)
    on_test = predictions(experiment, outcomes, "test", training.batch_size)
    tests = [question.test.open() if len(question.test) else None for question in experiment.questions]
    results = []
    for number, outcome in enumerate(outcomes):
        if outcome.state is None:
            continue
        task, test = experiment.tasks[outcome.trial.task], tests[outcome.trial.task]
        line = describe(experiment, outcome, training, protocol)
        line["valid"] = all_metrics(on_valid[number], task.valid, task.kind)
        if test is not None:
            add_test(line, out, on_test[number], test, task)
        thresholds = _thresholds(on_valid.get(number), task)
        line["files"]["head"] = _write_head(out, line, experiment, outcome, thresholds)
        results.append(append_result(out, line))
    return results


def describe(
    experiment: Experiment, outcome: Outcome, training: Training, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """A result line before any score: what was trained, on what, how and where."""
    trial = outcome.trial
    return {
        "run": run_digest(experiment, trial, training, protocol),
        **setting(experiment, trial.task, trial.layer),
        "head": trial.head,
        "options": dict(trial.options),
        "searched": list(trial.searched),
        "by_preset": _by_preset(trial, protocol),
        "code": trial.spec.code,
        "parameters": _parameters(experiment, trial),
        "read_bytes": experiment.read_bytes(trial, len(outcome.scores), training.passes),
        "loss": trial.loss,
        "lr": trial.lr,
        "weight_decay": trial.weight_decay,
        "seed": trial.seed,
        "training": asdict(training),
        "protocol": dict(protocol),
        "epoch": outcome.epoch,
        "epochs": len(outcome.scores),
        "plateau": outcome.plateau,
        "kept_last": outcome.epoch == len(outcome.scores),
        "at_edge": _at_edge(trial, protocol),
        "match": form_for(experiment),
        "valid_scores": outcome.scores,
        "train_losses": outcome.losses,
        "seconds": round(outcome.seconds, 3),
        **place(experiment.device),
    }


def _parameters(experiment: Experiment, trial: Trial) -> int:
    """How many numbers a head learns."""
    head = fresh_head(trial, experiment.tasks[trial.task], experiment.cache)
    return sum(own.numel() for own in head.parameters() if own.requires_grad)


def _by_preset(trial: Trial, protocol: Mapping[str, Any]) -> list[str]:
    """The options that are as the preset has them: names in tables go without."""
    own = preset_named(protocol["preset"]).options_of(trial.head)
    return [name for name, value in own.items() if trial.options.get(name) == value]


def _at_edge(trial: Trial, protocol: Mapping[str, Any]) -> bool | None:
    """Whether a searched rate lies within a tenth of the edge of its range; None if it was given."""
    if not protocol.get("search") or protocol.get("fixed", {}).get("lr") is not None:
        return None
    bounds = preset_named(protocol["preset"]).searching(protocol.get("lr_range")).lr_range_of(trial.head)
    edge = edge_of(trial.lr, bounds)
    if edge and protocol["search"].get("beyond"):  # then the search went on beyond it
        edge = edge_of(trial.lr, widened(bounds, edge))
    return edge != 0


def form_for(experiment: Experiment) -> str:
    """The form of the match that runs on this device for tokens of this cache."""
    tokens = torch.empty(0, 1, 1, dtype=experiment.cache.store.torch, device=experiment.device)
    name = chosen()
    forms = (form for form, own in ENGINES.items() if own.serves(tokens, torch.empty(0, 1)))
    return next(forms) if name == "auto" else name


def _thresholds(logits: Logits | None, task: Task) -> list[float | None] | None:
    """From which logit on each class is best called present, where a clip may have several."""
    if logits is None or task.kind == "single-label":
        return None
    return best_thresholds(logits, task.valid.targets)


def _write_head(
    out: Path,
    line: Mapping[str, Any],
    experiment: Experiment,
    outcome: Outcome,
    thresholds: list[float | None] | None,
) -> str:
    short = Path(line["head"]).name  # of a head in a file: FILE.py:CLASS, wherever the file is
    name = file_name(f"{line['encoder']}-{line['dataset']}-{short}")
    path = Path("heads") / f"{name}-{line['run']}.safetensors"
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in line.items() if key not in UNSAID}
    task = experiment.tasks[outcome.trial.task]
    config |= {"class_names": list(task.classes), "thresholds": thresholds}
    save(trained_head(outcome, task, experiment.cache), out / path, config=config)
    return str(path)
