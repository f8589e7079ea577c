"""Results: one JSON line a trained head, with everything needed to repeat the run."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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
    def encoder(self) -> str:
        """The encoder as tables name it: with its storage dtype where that is not float16."""
        dtype = self["cache"]["dtype"]
        return str(self["encoder"]) + ("" if dtype == "float16" else f" ({dtype})")

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
    append_lines(home / RESULTS, [line])
    return Result(json.loads(_json(line)), home)


def read_results(paths: Iterable[str | Path]) -> list[Result]:
    """The results of files or of folders that hold a ``results.jsonl``, in order.

    A run that is listed twice counts once, by its last line.

    Raises:
        MissingError: a path does not exist.
        InputError: a file holds other things than results.
    """
    found: dict[str, Result] = {}
    for path in map(Path, paths):
        file = path / RESULTS if path.is_dir() else path
        if not file.is_file():
            raise MissingError(f"no results at {file}; make some with 'featcache probe CACHE --out {path}'")
        for number, line in read_lines(file):
            if not {"run", "head", "metric"} <= set(line):
                raise InputError(f"{file} line {number} is not a result; wanted the results.jsonl of a probe")
            found[line["run"]] = Result(line, file.parent)
    return list(found.values())


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add JSON lines to a file and make them durable; a last line torn by a crash is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell() and not _ends_line(file):
            file.write(b"\n")
        file.write("".join(_json(line) + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers; what a crash has torn is passed over."""
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            found.append((number, line))
    return found


def digest_of(values: Any) -> str:
    """16 hex digits over JSON values: equal runs have equal digests."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()


def _json(line: Mapping[str, Any]) -> str:
    return json.dumps(_plain(line), allow_nan=False)


def _ends_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _plain(value: Any) -> Any:
    """JSON has no NaN: a metric that does not exist is null."""
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
