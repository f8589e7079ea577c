"""What every result line says, of trained and of solved heads alike."""

import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featcache.cache.format.durable import replace_file
from featcache.devices import device_name, versions
from featcache.heads.data.tasks import Part, Task
from featcache.heads.probing.experiment import Experiment
from featcache.heads.report.metrics import all_metrics, average_precision, label_matrix
from featcache.heads.report.results import digest_of

Logits = NDArray[np.float32]


def setting(experiment: Experiment, number: int, layer: int) -> dict[str, Any]:
    """Of what tokens and of which question a result is."""
    cache, question = experiment.cache, experiment.questions[number]
    task = question.task
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "encoder": cache.fingerprint["encoder"],
        "cache": {
            "path": str(cache.path.absolute()),
            "digest": digest_of(cache.fingerprint),
            "fingerprint": cache.fingerprint,
            "dtype": cache.dtype,
            "converted": experiment.converted,
        },
        "dataset": task.name,
        "manifest": {
            "path": str(experiment.manifest_of(task).path.absolute()),
            "digest": task.digest,
            "audio": experiment.audio.get(task.digest),
        },
        "fold": task.fold,
        "shots": task.shots,
        "train_pool": len(task.train) if task.pool is None else task.pool,
        "draw": task.draw,
        "task": task.kind,
        "metric": task.metric,
        "classes": len(task.classes),
        "clips": {"train": len(task.train), "valid": len(task.valid), "test": len(question.test)},
        "train_per_class": dict(zip(task.classes, _counts(task.train, len(task.classes)), strict=True)),
        "layer": layer,
        "last_layer": layer == max(cache.fingerprint.get("layers") or cache.layers),
        "valid": None,
        "test": None,
        "per_class": None,
        "files": {},
    }


def _counts(part: Part, classes: int) -> list[int]:
    """Clips of each class."""
    return [int(count) for count in label_matrix(part, classes).sum(axis=0, dtype=np.int64)]


def place(device: torch.device) -> dict[str, Any]:
    """Where and by what command a result was made."""
    return {"versions": versions(), "device": device_name(device), "command": sys.argv}


def add_test(line: dict[str, Any], out: Path, logits: Logits, test: Part, task: Task) -> None:
    """Score logits (n, C) of the test clips into a line, and write them beside it."""
    line["test"] = all_metrics(logits, test, task.kind)
    values = average_precision(label_matrix(test, len(task.classes)), logits)
    line["per_class"] = dict(zip(task.classes, values.tolist(), strict=True))
    line["files"]["scores"] = _write_scores(out, line["run"], test, logits)


def _write_scores(out: Path, run: str, test: Part, logits: Logits) -> str:
    path = Path("scores") / f"{run}.npz"
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    ids, groups = np.array(test.ids), np.array(test.groups)
    content = io.BytesIO()
    np.savez_compressed(content, ids=ids, logits=logits, targets=test.targets, groups=groups)
    replace_file(out / path, content.getvalue(), durable=False)
    return str(path)
