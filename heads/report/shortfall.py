"""Whether a trained linear head stays below what can be solved on the very features that it reads."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from featcache.heads.report.results import Result
from featcache.heads.report.summary import Cell

GAP = 0.02  # two points, in 0..1
LINEAR = ("linear", "linear-mean", "linearc")  # heads that are one linear layer on vectors of a clip


def shortfalls(cells: Sequence[Cell]) -> Iterable[tuple[Cell, Cell, float]]:
    """Each ``linear``, ``linear-mean`` or ``linearc`` more than two points below ``logreg``, with that.

    Compared are means over seeds and folds, of the same tokens, data set, layer, shots and folds, fitted on
    the train clips alone: where few clips are held out, ``logreg`` saw those as well, and is ahead by that.
    Solving is not the better method by nature (its loss is the same): a trained head this far below it was
    not trained enough.

    Yields:
        The head, ``logreg``, and the score of ``logreg`` that it was held against.
    """
    known = [(cell, cell.results[0]["head"]) for cell in cells if cell.results]
    solved = {_key(cell): cell for cell, head in known if head == "logreg"}
    for cell, head in known:
        twin = solved.get(_key(cell)) if head in LINEAR else None
        scores = [_of_train(result) for result in twin.results] if twin is not None else []
        fair = [score for score in scores if score is not None]
        if twin is not None and len(fair) == len(scores) and fmean(fair) - cell.mean > GAP:
            yield cell, twin, fmean(fair)


def _of_train(result: Result) -> float | None:
    """The score of a solved head that was fitted on the train clips alone; None where that is not known."""
    chosen = result.get("chosen") or {}
    if not result["test"] or chosen.get("clips") == (result.get("clips") or {}).get("train"):
        return result.value  # on valid it is that of heads that have not seen the clip
    alone = chosen.get("train_alone")
    return None if alone is None else float(alone)


def _key(cell: Cell) -> tuple[str, ...]:
    first = cell.results[0]
    asked = cell.encoder, cell.dataset, first["layer"], first.shots, sorted(map(str, cell.tested_on))
    return (*map(str, asked), features_of(first))


def features_of(result: Result) -> str:
    """What a linear head reads of a clip: "cls", "mean", both, or what a solved one was given."""
    if result["head"] in ("linear", "linearc"):
        cls = {"linear": "cls", "linearc": "cls+mean"}[result["head"]]
        return cls if _field(result.line, "cache", "fingerprint", "settings", "has_cls") else "mean"
    return str(_field(result.line, "options", "features") or "mean")


def _field(line: object, *names: str) -> object:
    """A field inside of others; None where one of them is missing, as in lines of other programs."""
    for name in names:
        line = line.get(name) if isinstance(line, Mapping) else None
    return line
