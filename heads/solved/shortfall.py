"""Whether a trained linear head stays below what can be solved on the very features that it reads."""

from collections.abc import Sequence

from featcache.heads.report.results import Result
from featcache.heads.report.summary import Cell, cells
from featcache.heads.solved.features import default_features

GAP = 0.02  # two points


def shortfalls(results: Sequence[Result], has_cls: bool) -> list[str]:
    """A line for each ``linear`` or ``linear-mean`` more than two points below ``logreg``.

    Compared are means over seeds and folds, of the same data set, layer and shots. Solving is not the better
    method by nature (its loss is the same): a trained head this far below it was not trained enough.
    """
    reads = {"linear": default_features(has_cls), "linear-mean": "mean"}
    found = cells(results)
    solved = {
        _key(cell, str(cell.results[0]["options"]["features"])): cell
        for cell in found
        if cell.results[0]["head"] == "logreg"
    }
    lines = []
    for cell in found:
        own = reads.get(cell.results[0]["head"])
        other = solved.get(_key(cell, own)) if own else None
        if other is not None and other.mean - cell.mean > GAP:
            lines.append(
                f"{cell.dataset}: {cell.head} is undertrained: {100 * cell.mean:.1f} against "
                f"{100 * other.mean:.1f} solved on the same features; train it longer or with a higher lr"
            )
    return lines


def _key(cell: Cell, features: str) -> tuple[object, ...]:
    first = cell.results[0]
    return cell.encoder, cell.dataset, first["layer"], first.shots, features
