"""What a run is of but for its seed: the tokens, the question and the method.

Nothing is averaged that is not a seed: only results that agree in all three are one row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from featcache.heads.report.results import Result

Settings = Mapping[str, Any]
SEARCHED = ("lr", "weight_decay")
OWN = ("loss", "code", "features", "solved")  # where a line has them

# Heads that the form of the match concerns. By name, because the table of heads would load torch.
MATCHING = ("proto", "protofloat", "protobin", "cgp")


def tokens_of(result: Result) -> Settings:
    """What the head read: the digest of the cache, its storage dtypes, and its fingerprint's fields."""
    cache = result["cache"]
    earlier = cache.get("converted")
    dtype = " from ".join([cache["dtype"], *(map(str, earlier) if isinstance(earlier, list) else ())])
    return {**_flat(cache.get("fingerprint") or {}), "cache": cache.get("digest"), "dtype": dtype}


def question_of(result: Result) -> Settings:
    """What was asked: digests of manifest and audio, kind of task, folds or none, how many clips in all.

    Splits are the manifest's, or are drawn by the seed of the command (as folds' valid clips are) and may
    then differ by a clip: so only the sum counts.
    """
    clips, folded = dict(result.get("clips") or {}), result["fold"] is not None
    if result.shots is not None:  # a draw from the same train split asks the same question
        clips["train"] = result.get("train_pool")
    manifest = result.get("manifest") or {}
    return _known({
        "manifest": manifest.get("digest"), "audio": manifest.get("audio"), "task": result.get("task"),
        "metric": result["metric"], "classes": result.get("classes"), "by": "folds" if folded else "split",
        "scored": "test" if result["test"] else "valid", "clips": sum(n for n in clips.values() if n),
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
        "head": result["head"], **{f"option {k}": v for k, v in result.fixed_options.items()}, "layer": layer,
        **rates, **_flat(result.get("training") or {}), **_flat(protocol),
        "search": _search_text(search, chosen, result.get("searched") or ()),
        **_flat(search or {}, "search."), **own,
        "match": result.get("match") if result["head"] in MATCHING else None,
    })  # fmt: skip


def seed_of(result: Result) -> tuple[object, ...]:
    """Everything that is a seed: of head, order of clips, search and drawn splits or shots; and the fold."""
    search = (result.get("protocol") or {}).get("search") or {}
    order = (result.get("training") or {}).get("seed")
    return result["fold"], result["seed"], order, search.get("seed"), result.get("draw")


def _search_text(
    search: Mapping[str, Any] | None, chosen: Sequence[str], options: Sequence[object]
) -> str | None:
    """How many trials, of what: ``25+25``, ``8+8 of lr``, ``16+16 with norm+standardize``."""
    if not search:
        return None
    only = "" if len(chosen) == len(SEARCHED) else f" of {'+'.join(chosen) or 'nothing'}"
    words = f" with {'+'.join(map(str, options))}" if options else ""
    return f"{search.get('sobol')}+{search.get('tpe')}{only}{words}"


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
