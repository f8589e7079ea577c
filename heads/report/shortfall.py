"""Whether a trained linear head stays below what can be solved on the very features that it reads."""

from collections.abc import Iterable, Mapping, Sequence

from featcache.heads.report.results import Result
from featcache.heads.report.summary import Cell

GAP = 0.02  # two points, in 0..1
LINEAR = ("linear", "linear-mean", "linearc")  # heads that are one linear layer on vectors of a clip


def shortfalls(cells: Sequence[Cell]) -> Iterable[tuple[Cell, Cell]]:
    """Each ``linear``, ``linear-mean`` or ``linearc`` more than two points below ``logreg``, with that.

    Compared are means over seeds and folds, of the same tokens, data set, layer, shots and folds. Solving is
    not the better method by nature (its loss is the same): a trained head this far below it was not trained
    enough.
    """
    known = [(cell, cell.results[0]["head"]) for cell in cells if cell.results]
    solved = {_key(cell): cell for cell, head in known if head == "logreg"}
    for cell, head in known:
        twin = solved.get(_key(cell)) if head in LINEAR else None
        if twin is not None and twin.mean - cell.mean > GAP:
            yield cell, twin


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
