"""Results: one JSON line a trained head, with everything needed to repeat the run."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InputError, MissingError

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One line of a results file, and where the file lies."""

    line: Mapping[str, Any]
    home: Path

    def __getitem__(self, name: str) -> Any:
        return self.line[name]

    @property
    def label(self) -> str:
        """The head as tables name it: with its options and layer where they are not the default."""
        options = ",".join(f"{name}={value}" for name, value in sorted(self["options"].items()))
        layer = "" if self["last_layer"] else f"@{self['layer']}"
        return f"{self['head']}{layer}{f'[{options}]' if options else ''}"

    @property
    def value(self) -> float:
        """The headline: test mAP or accuracy; of valid where there is no test split."""
        scores = self["test"] or self["valid"]
        value = scores[self["metric"]]
        return math.nan if value is None else float(value)

    def file(self, kind: str) -> Path:
        """The path of the trained ``head`` or of its test ``scores``."""
        return self.home / str(self["files"][kind])

    def scores(self) -> tuple[list[str], NDArray[np.float32], NDArray[np.generic]]:
        """Test clips' ids, logits (n, C) and targets."""
        with np.load(self.file("scores"), allow_pickle=False) as arrays:
            return arrays["ids"].tolist(), arrays["logits"], arrays["targets"]


def append_result(home: Path, line: Mapping[str, Any]) -> Result:
    """Add one line to the results in ``home`` and make it durable."""
    text = json.dumps(_plain(line), allow_nan=False)
    home.mkdir(parents=True, exist_ok=True)
    with (home / RESULTS).open("a", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return Result(json.loads(text), home)


def read_results(paths: Iterable[str | Path]) -> list[Result]:
    """The results of files or of folders that hold a ``results.jsonl``, in order.

    A run that is listed twice counts once, by its last line; a line cut short by a crash is passed
    over.

    Raises:
        MissingError: a path does not exist.
        InputError: a file holds other things than results.
    """
    found: dict[str, Result] = {}
    for path in map(Path, paths):
        file = path / RESULTS if path.is_dir() else path
        if not file.is_file():
            raise MissingError(f"no results at {file}; make some with 'featcache probe CACHE --out {path}'")
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, text in enumerate(lines, 1):
            line = _parse(text, file, number, last=number == len(lines))
            if line is not None:
                found[line["run"]] = Result(line, file.parent)
    return list(found.values())


def digest_of(values: Any) -> str:
    """16 hex digits over JSON values: equal runs have equal digests."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def _parse(text: str, file: Path, number: int, *, last: bool) -> dict[str, Any] | None:
    if not text.strip():
        return None
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        if last:
            return None
        line = None
    if not isinstance(line, dict) or not {"run", "head", "metric"} <= set(line):
        raise InputError(f"{file} line {number} is not a result of featcache; wanted results.jsonl files")
    return line


def _plain(value: Any) -> Any:
    """JSON has no NaN: a metric that does not exist is null."""
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
