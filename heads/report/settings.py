"""What a run is of but for its seed, and names that tell apart what differs.

Nothing is averaged that is not a seed: results whose settings agree are one row, and others are rows
of their own, named by the settings that differ and by no other.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from featcache.heads.report.results import Result, digest_of

Settings = Mapping[str, Any]
SEARCHED = ("lr", "weight_decay")
SHORT = {"batch_size": "batch", "weight_decay": "decay"}
OWN = ("loss", "code", "match", "match_engine", "features", "solved")  # where a line has them
DIGESTS = ("manifest", "cache", "code")


def tokens_of(result: Result) -> Settings:
    """What the head read: the digest of the cache, its storage dtype, and its fingerprint's fields."""
    cache = result["cache"]
    return {**_flat(cache.get("fingerprint") or {}), "cache": cache.get("digest"), "dtype": cache["dtype"]}


def question_of(result: Result) -> Settings:
    """What was asked: the manifest's digest, kind of task, folds or none, and how many clips.

    Folds may differ by a clip, so in cross-validation only the sum of the splits counts.
    """
    clips, folded = result.get("clips") or {}, result["fold"] is not None
    counts = {"clips": sum(clips.values())} if folded else {f"clips.{part}": n for part, n in clips.items()}
    return _known({
        "manifest": (result.get("manifest") or {}).get("digest"), "task": result.get("task"),
        "metric": result["metric"], "classes": result.get("classes"), "by": "folds" if folded else "split",
        "scored": "test" if result["test"] else "valid", **counts,
    })  # fmt: skip


def method_of(result: Result) -> Settings:
    """How the head came about: loss, rates, training, preset and search; no seed, device or version.

    What a search chose is not part of it (each fold and each search seed may choose its own rate);
    what was searched, and how long, is.
    """
    protocol = dict(result.get("protocol") or {})
    search, fixed = protocol.pop("search", None), protocol.pop("fixed", None) or {}
    chosen = [name for name in SEARCHED if fixed.get(name) is None] if search else []
    if result.get("solved"):
        chosen = list(SEARCHED)
    rates = {name: result.get(name) for name in SEARCHED if name not in chosen}
    own = {name: result.get(name) or None for name in OWN}
    layer = "last" if result["last_layer"] else result["layer"]
    return _known({
        "head": result["head"], **{f"option {k}": v for k, v in result["options"].items()}, "layer": layer,
        **rates, **_flat(result.get("training") or {}), **_flat(protocol),
        "search": _search_text(search, chosen), **_flat(search or {}, "search."), **own,
    })  # fmt: skip


def seed_of(result: Result) -> tuple[object, ...]:
    """Everything that is a seed: of the head, of the order of clips and of the search; and the fold."""
    search = (result.get("protocol") or {}).get("search") or {}
    order = (result.get("training") or {}).get("seed")
    return result["fold"], result["seed"], order, search.get("seed")


def names(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    """Encoder, data set and head of each result: equal if and only if all but the seed is equal.

    A head is named by a setting where two runs of it on one data set differ in that, then on every
    data set and under every encoder; encoders likewise. What differs between data sets alone (a
    loss, the epochs that a number of steps makes, the length of clips) names nothing.
    """
    datasets = _apart([str(r["dataset"]) for r in results], [question_of(r) for r in results], few=1)
    encoders = _apart([r.encoder for r in results], [tokens_of(r) for r in results], within=datasets, few=2)
    heads = _apart([r.label for r in results], [method_of(r) for r in results], within=datasets)
    return list(zip(encoders, datasets, heads, strict=True))


def _apart(
    labels: Sequence[str], records: Sequence[Settings], *, within: Sequence[str] = (), few: int | None = None
) -> list[str]:
    """Labels, with the fields that differ between the records of one label (and one of ``within``).

    Args:
        few: show so many fields at most: else the first that tells all apart, or the record's digest
    """
    places = list(zip(labels, within or [""] * len(labels), strict=True))
    groups: dict[tuple[str, str], dict[str, Settings]] = {}
    for place, record in zip(places, records, strict=True):
        groups.setdefault(place, {})[digest_of(record)] = record
    fields: dict[str, list[str]] = {}
    for (label, _), own in groups.items():
        fields.setdefault(label, []).extend(_differing(own.values(), few))
    named = [_name(label, record, fields[label]) for label, record in zip(labels, records, strict=True)]
    holds: dict[tuple[str, str], set[str]] = {}
    digests = [digest_of(record) for record in records]
    for name, place, digest in zip(named, places, digests, strict=True):
        holds.setdefault((name, place[1]), set()).add(digest)
    return [  # two values may be printed alike
        name if len(holds[name, place[1]]) == 1 else f"{name} #{digest[:6]}"
        for name, place, digest in zip(named, places, digests, strict=True)
    ]


def _differing(records: Iterable[Settings], few: int | None) -> list[str]:
    own = list(records)
    told = {
        name: {json.dumps(record.get(name)) for record in own} - _no_difference(name)
        for name in dict.fromkeys(name for record in own for name in record)
    }
    found = [name for name, values in told.items() if len(values) > 1]
    plain = [name for name in found if name != "cache"]  # a fingerprint's fields say more than its digest
    if few is None or len(plain) <= few:
        return plain or found
    telling = [name for name in (*DIGESTS, *found) if len(told.get(name, ())) == len(own)]
    return telling[:1] or found


def _no_difference(name: str) -> set[str]:
    """A rate that a search chose is no difference to one that was given: ``search`` says that."""
    return {"null"} if name in SEARCHED else set()


def _name(label: str, record: Settings, fields: Iterable[str]) -> str:
    texts = [_text(name, record.get(name)) for name in dict.fromkeys(fields)]
    shown = ", ".join(text for text in texts if text)
    return f"{label} [{shown}]" if shown else label


def _text(name: str, value: Any) -> str:
    short = SHORT.get(name, name)
    if name.startswith("search.") or (value is None and name in SEARCHED):
        return ""  # the field ``search`` says it
    if value is None:
        return f"no {short}"
    if isinstance(value, str) and name in DIGESTS:
        value = value[:6]
    return f"{short} {value:.3g}" if isinstance(value, float) else f"{short} {value}"


def _search_text(search: Mapping[str, Any] | None, chosen: Sequence[str]) -> str | None:
    """How many trials, of what: ``25+25``, ``8+8 of lr``."""
    if not search:
        return None
    only = "" if len(chosen) == len(SEARCHED) else f" of {'+'.join(chosen) or 'nothing'}"
    return f"{search.get('sobol')}+{search.get('tpe')}{only}"


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by their dotted names, without seeds and without what is not set."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        elif name != "seed" and value is not None:
            found[prefix + name] = value
    return found


def _known(record: Mapping[str, Any]) -> Settings:
    return {name: value for name, value in record.items() if value is not None}
