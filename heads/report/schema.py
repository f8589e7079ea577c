"""What a line of results must hold, so that no reader of results meets a field of another type."""

from collections.abc import Mapping
from types import UnionType
from typing import Any

Types = type | UnionType | tuple[type, ...]
_OBJECT = (dict, type(None))
_SEED = int | None

# Dotted names, an object before what is in it.
REQUIRED: Mapping[str, Types] = {
    "run": str, "encoder": str, "dataset": str, "head": str, "metric": str,
    "cache": dict, "cache.dtype": str, "options": dict, "test": _OBJECT, "valid": _OBJECT,
    "fold": str | int | None, "seed": _SEED, "layer": int, "last_layer": bool,
    "epoch": int | None, "seconds": int | float,
}  # fmt: skip
OPTIONAL: Mapping[str, Types] = {
    "cache.fingerprint": _OBJECT, "manifest": _OBJECT, "clips": _OBJECT, "files": _OBJECT,
    "shots": int | None, "train_pool": int | None, "draw": _SEED, "training": _OBJECT, "training.seed": _SEED,
    "protocol": _OBJECT, "protocol.fixed": _OBJECT, "protocol.search": _OBJECT,
    "protocol.search.seed": _SEED, "versions": _OBJECT, "searched": list | None, "by_preset": list | None,
    "per_class": _OBJECT, "train_per_class": _OBJECT, "parameters": int | None, "read_bytes": int | None,
}  # fmt: skip
VALUES: Mapping[str, Types] = {
    "clips": int,
    "files": str,
    "test": int | float | None,
    "valid": int | float | None,
    "per_class": int | float | None,
    "train_per_class": int,
}
_ABSENT = object()


def is_result(line: Mapping[str, Any]) -> bool:
    """Whether a line has what every reader of results asks it for."""
    return (
        all(isinstance(_find(line, name), types) for name, types in REQUIRED.items())
        and all(_find(line, name) is _ABSENT or _fits(line, name) for name in OPTIONAL)
        and all(
            isinstance(value, VALUES[name]) for name in VALUES for value in (line.get(name) or {}).values()
        )
        and line["metric"] in (line["test"] or line["valid"] or {})
    )


def _fits(line: Mapping[str, Any], name: str) -> bool:
    return isinstance(_find(line, name), OPTIONAL[name])


def _find(line: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name; ``_ABSENT`` where it or what it would be in is missing."""
    value: Any = line
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
    return value
