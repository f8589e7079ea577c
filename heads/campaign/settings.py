"""A study read from its TOML file. Every key is known, or it is an error with the nearest that is."""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from featcache.arguments import COUNT, FROM_ZERO, Rule, check, seconds_from
from featcache.errors import InputError, MissingError, unknown
from featcache.extraction.rules import RULES as EXTRACTION
from featcache.files import read_bytes, reason
from featcache.heads.campaign.study import StudyDataset, StudyEncoder, StudyFile
from featcache.heads.probing.arguments import RULES as PROBING
from featcache.heads.probing.presets import PRESETS
from featcache.heads.registry import parse_choice
from featcache.heads.report.published import FILES
from featcache.heads.solved.registry import is_solved, parse_solved
from featcache.manifest import SPLITS

T = TypeVar("T", StudyEncoder, StudyDataset)
Rules = Mapping[str, Rule | Sequence[str]]


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(own, str) and own for own in value)


TEXT = Rule("text", lambda value: isinstance(value, str) and bool(value))
TEXTS = Rule('a list of text, such as ["a", "b"]', _texts)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
TABLE = Rule("a table, such as { name = 1 }", lambda value: isinstance(value, dict))
LAYERS = Rule(
    'layers: "all", "1-12", or a list of numbers',
    lambda value: isinstance(value, str) or (isinstance(value, list) and all(map(COUNT.fits, value))),
)
NUMBERS = Rule("a list of numbers", lambda value: isinstance(value, list) and all(map(COUNT.fits, value)))

EXTRACT: Rules = {
    **EXTRACTION, "device": TEXT, "layers": LAYERS, "skip_failed": FLAG, "accept_truncated": FLAG,
}  # fmt: skip
PROBE: Rules = {
    **PROBING, "search": FLAG, "preset": tuple(PRESETS), "folds": FLAG, "allow_leak": FLAG, "solved": FLAG,
    "verify": FLAG, "layers": NUMBERS, "loss": TEXT, "device": TEXT,
}  # fmt: skip
FEWSHOT: Rules = {"shots": COUNT, "seed": FROM_ZERO, "max_seconds": seconds_from(0, 1e9)}
ENCODER: Rules = {"encoder": TEXT, "weights": TEXT, "options": TABLE, "extract": TABLE, "probe": TABLE}
DATASET: Rules = {
    "source": TEXT, "splits": TEXTS, "allow_missing": FLAG, "fewshot": TABLE, "extract": TABLE,
    "probe": TABLE,
}  # fmt: skip
TOP: Rules = {
    "name": TEXT, "caches": TEXT, "results": TEXT, "reference": tuple(FILES), "heads": TEXTS,
    "extract": TABLE, "probe": TABLE, "slurm": TABLE, "encoders": TABLE, "datasets": TABLE,
}  # fmt: skip
TABLES = {"extract": EXTRACT, "probe": PROBE, "fewshot": FEWSHOT}
NAME = re.compile(r"[\w.+-]{1,60}")


def read_study(path: str | Path) -> StudyFile:
    """Read a study; paths in it are relative to its folder.

    Raises:
        MissingError: there is no such file.
        InputError: it is no TOML, or a key or value is not one that a study has; the message names it.
    """
    path = Path(path)
    own = _read(path)
    _check(str(path), own, TOP)
    absent = [key for key in ("heads", "encoders", "datasets") if not own.get(key)]
    if absent:
        raise InputError(
            f"{path} has no {', '.join(absent)}; 'featcache study --new unmute' writes a whole one"
        )
    home = path.parent
    for head in own["heads"]:
        parse_solved(head, True) if is_solved(head) else parse_choice(_in_file(home, head))
    return StudyFile(
        name=own.get("name", path.stem),
        path=path,
        caches=home / Path(own.get("caches", "caches")).expanduser(),
        results=home / Path(own.get("results", "results")).expanduser(),
        heads=tuple(_in_file(home, head) for head in own["heads"]),
        encoders=_tables(path, own, "encoders", ENCODER, lambda name, o: _encoder(home, name, o)),
        datasets=_tables(path, own, "datasets", DATASET, lambda name, o: _dataset(path, name, o)),
        reference=own.get("reference"),
        extract=own.get("extract", {}),
        probe=own.get("probe", {}),
        slurm=_slurm(path, own.get("slurm", {})),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise MissingError(
            f"no study at {path}; 'featcache study --new unmute' writes one to begin with"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({reason(error).lower()}); name a TOML file") from None
    except ValueError as error:  # also bytes that are no UTF-8
        raise InputError(f"{path} is no TOML file ({error}); mend it there") from None


def _check(where: str, own: Mapping[str, Any], rules: Rules) -> None:
    """Hold a table to its rules, and the tables in it to theirs."""
    for key in own:
        if key not in rules:
            raise unknown(f"key in {where}", key, list(rules))
    try:
        check(rules, own)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    for key, inner in TABLES.items():
        if key in rules and key in own:
            _check(f"{where} [{key}]", own[key], inner)


def _tables(
    path: Path, own: Mapping[str, Any], kind: str, rules: Rules, make: Callable[[str, Any], T]
) -> tuple[T, ...]:
    found = []
    for name, table in own[kind].items():
        where = f"{path} [{kind}.{name}]"
        if not NAME.fullmatch(name) or name in (".", ".."):
            raise InputError(f"{where}: a name is letters, digits and . + - _, because folders have it")
        if not isinstance(table, dict):
            raise InputError(f"{where} is {table!r}; wanted {TABLE.wanted}")
        _check(where, table, rules)
        found.append(make(name, table))
    return tuple(found)


def _encoder(home: Path, name: str, own: Mapping[str, Any]) -> StudyEncoder:
    encoder, weights = own.get("encoder", name), own.get("weights")
    if encoder.startswith("hf:") and (home / encoder[3:]).is_dir():
        encoder = f"hf:{home / encoder[3:]}"
    if weights and not weights.startswith(("hf-hub:", "http://", "https://")):
        weights = str(home / Path(weights).expanduser())
    return StudyEncoder(
        name=name,
        encoder=_in_file(home, encoder),
        weights=weights,
        options={key: value if isinstance(value, str) else str(value) for key, value in _options(own)},
        extract=own.get("extract", {}),
        probe=own.get("probe", {}),
    )


def _options(own: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """An encoder's own options, as the command line would give them."""
    pairs = own.get("options", {}).items()
    return [(key, str(value).lower() if isinstance(value, bool) else value) for key, value in pairs]


def _dataset(path: Path, name: str, own: Mapping[str, Any]) -> StudyDataset:
    from featcache.datasets.remote import is_remote
    from featcache.datasets.table import DATASETS

    where = f"{path} [datasets.{name}]"
    if "source" not in own:
        raise InputError(f'{where} has no source; wanted "NAME:FOLDER", a manifest or a folder')
    for split in own.get("splits", ()):
        if split not in SPLITS:
            raise unknown(f"split in {where}", split, list(SPLITS))
    if "fewshot" in own and "shots" not in own["fewshot"]:
        raise InputError(f"{where} [fewshot] has no shots; give a number of train clips a class")
    known, colon, root = own["source"].partition(":")
    if colon and known not in DATASETS:
        raise unknown(f"data set in {where}", known, list(DATASETS))
    place = root
    if not is_remote(root):
        place = str(path.parent / Path(root if colon else own["source"]).expanduser())
    keys = ("allow_missing", "fewshot", "extract", "probe")
    return StudyDataset(
        name=name,
        source=f"{known}:{place}" if colon else place,
        splits=tuple(own.get("splits", ())),
        **{key: own[key] for key in keys if key in own},
    )


def _slurm(path: Path, own: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, value in own.items():
        if not re.fullmatch(r"[a-z][a-z-]*", key) or isinstance(value, dict | list):
            raise InputError(
                f'{path} [slurm] {key} is {value!r}; wanted options of sbatch, such as time = "12:00:00"'
            )
    return own


def _in_file(home: Path, name: str) -> str:
    """FILE.py:CLASS, with the file found from the study's folder."""
    file, separator, rest = name.partition(".py:")
    return f"{home / Path(file).expanduser()}{separator}{rest}" if separator else name
