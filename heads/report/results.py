"""Results: one JSON line a trained head, with everything needed to repeat the run."""

import hashlib
import io
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from featcache.errors import InputError, MissingError
from featcache.files import read_bytes, reason
from featcache.heads.report.schema import is_result
from featcache.jsonl import FILE_BYTES, append_lines, encode, read_lines

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One line of a results file, and where the file lies."""

    line: Mapping[str, Any]
    home: Path

    def __getitem__(self, name: str) -> Any:
        return self.line[name]

    def get(self, name: str) -> Any:
        """A field that older lines may lack; None where it is missing."""
        return self.line.get(name)

    @property
    def encoder(self) -> str:
        """The encoder as tables name it: with its storage dtype where that is not float16."""
        dtype = self["cache"]["dtype"]
        return str(self["encoder"]) + ("" if dtype == "float16" else f" ({dtype})")

    @property
    def shots(self) -> int | None:
        """Train clips of each class; None is all."""
        return self.line.get("shots")

    @property
    def fixed_options(self) -> dict[str, Any]:
        """The head's options but for those that a search chose: each fold and seed may choose its own."""
        searched = self.line.get("searched") or ()
        return {name: value for name, value in self["options"].items() if name not in searched}

    @property
    def label(self) -> str:
        """The head as tables name it: with its options, layer and shots where they are not the preset's."""
        unsaid = self.line.get("by_preset") or ()
        own = [(name, value) for name, value in sorted(self.fixed_options.items()) if name not in unsaid]
        options = ",".join(f"{name}={value}" for name, value in own)
        layer = "" if self["last_layer"] else f"@{self['layer']}"
        shots = "" if self.shots is None else f" {self.shots}-shot"
        return f"{self['head']}{layer}{f'[{options}]' if options else ''}{shots}"

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
        arrays = self._arrays()
        return arrays["ids"].tolist(), arrays["logits"], arrays["targets"]

    def groups(self) -> list[str] | None:
        """The recording that each test clip is of, in the order of ``scores``; None where unknown."""
        arrays = self._arrays()
        return [str(group) for group in arrays["groups"]] if "groups" in arrays else None

    def _arrays(self) -> dict[str, NDArray[Any]]:
        path = self.file("scores")
        try:
            with np.load(io.BytesIO(read_bytes(path, FILE_BYTES)), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays}
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            why = reason(error) if isinstance(error, OSError) else "it is damaged"
            raise _unreadable(path, why) from error
        if not {"ids", "logits", "targets"} <= set(found):
            raise _unreadable(path, "it is no file of scores")
        return found


def _unreadable(path: Path, why: str) -> InputError:
    return InputError(f"the test scores {path} cannot be read ({why}); run the probe into another folder")


def append_result(home: Path, line: Mapping[str, Any]) -> Result:
    """Add one line to the results in ``home`` and make it durable."""
    append_lines(home / RESULTS, [line])
    return Result(json.loads(encode(line)), home)


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
        try:
            lines = [line for line in read_lines(file) if line.record is not None]  # None: torn by a crash
        except OSError as error:
            raise InputError(f"{file} cannot be read: {reason(error)}") from error
        for number, line, _ in lines:
            if line is None or not is_result(line):
                raise InputError(f"{file} line {number} is not a result; wanted the results.jsonl of a probe")
            found[line["run"]] = Result(line, file.parent)
    return list(found.values())


def known_results(home: Path) -> dict[str, Result]:
    """The results in a folder by their run; none where there is no file yet."""
    return {found["run"]: found for found in read_results([home])} if (home / RESULTS).exists() else {}


def digest_of(values: Any) -> str:
    """16 hex digits over JSON values: equal runs have equal digests."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()
