"""Names of rows and columns: what differs in settings has names that differ, by these settings alone."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from featcache.heads.report.results import Result, digest_of
from featcache.heads.report.settings import SEARCHED, Settings, method_of, question_of, tokens_of

SHORT = {"batch_size": "batch", "weight_decay": "decay"}
DIGESTS = ("manifest", "audio", "cache", "code")


def names(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    """Encoder, data set and head of each result: equal if and only if all but the seed is equal.

    A head is named by a setting where two runs of it on one data set differ in that, then on every
    data set and under every encoder; encoders likewise. What differs between data sets alone (a
    loss, the epochs that a number of steps makes, the length of clips) names nothing.
    """
    datasets = _apart([str(r["dataset"]) for r in results], _questions(results), few=1)
    encoders = _apart([r.encoder for r in results], [tokens_of(r) for r in results], within=datasets, few=2)
    heads = _apart([r.label for r in results], [method_of(r) for r in results], within=datasets)
    return list(zip(encoders, datasets, heads, strict=True))


def _questions(results: Sequence[Result]) -> list[Settings]:
    """What each result was asked; a line that is too old to name its audio has that of its manifest's others.

    Unless these name several.
    """
    records = [question_of(result) for result in results]
    known: dict[str, dict[str, Any]] = {}
    for record in records:
        if "audio" in record:
            known.setdefault(str(record.get("manifest")), {})[str(record["audio"])] = record["audio"]
    alone = {
        manifest: {"audio": next(iter(own.values()))} for manifest, own in known.items() if len(own) == 1
    }
    return [{**alone.get(str(record.get("manifest")), {}), **record} for record in records]


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
    if name.startswith("search.") or (value is None and (name in SEARCHED or name.startswith("option "))):
        return ""  # the field ``search`` says it
    if value is None:
        return f"no {short}"
    if isinstance(value, str) and name in DIGESTS:
        value = value[:6]
    return f"{short} {value:.3g}" if isinstance(value, float) else f"{short} {value}"
