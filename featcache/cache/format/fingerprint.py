"""Comparing what two caches say their tokens are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.cache.format.layout import CacheLayout
from featcache.errors import MismatchError

_MISSING = "(not there)"


def fingerprint_differences(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """The fields in which two nested records differ, as (dotted path, first, second).

    >>> fingerprint_differences({"weights": {"digest": "a1"}, "layers": [12]}, {"weights": {"digest": "b2"}})
    [('layers', [12], '(not there)'), ('weights.digest', 'a1', 'b2')]
    """
    differences: list[tuple[str, Any, Any]] = []
    for field in sorted({*first, *second}):
        one, two = first.get(field, _MISSING), second.get(field, _MISSING)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            differences += fingerprint_differences(one, two, f"{prefix}{field}.")
        elif one != two:
            differences.append((prefix + field, one, two))
    return differences


def as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it comes back from a JSON file: tuples become lists, keys strings."""
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def check_same_tokens(path: Path, stored: CacheLayout, wanted: CacheLayout, also: Sequence[str] = ()) -> None:
    """Refuse to mix tokens of two kinds.

    Args:
        also: storage settings that must agree too: "codec", "shard_clips"

    Raises:
        MismatchError: naming each field that differs, both values, and what to do.
    """
    records = as_json(stored.attributes()), as_json(wanted.attributes())
    for record in records:
        record["store"] = {field: record["store"][field] for field in ("dtype", *also)}
    differences = fingerprint_differences(records[0], records[1])
    if differences:
        fields = "; ".join(f"{field}: there {one!r}, wanted {two!r}" for field, one, two in differences)
        raise MismatchError(
            f"the token cache {path} holds other tokens than wanted: {fields}; "
            "use another path, or change what sets these fields"
        )
