"""What a reader should doubt: heads short of their plateau, rates at an edge, runs of mixed making."""

from collections.abc import Iterable, Sequence

from featcache.heads.report.results import Result
from featcache.heads.report.summary import Cell

DOUBTED = "‡"
BELOW = 0.02  # how far a trained head may lie below its solved twin, in 0..1
SOLVED_TWIN = {"linear": "logreg", "linear-mean": "logreg-mean"}  # the same features, solved to the end


def doubts(cell: Cell) -> list[str]:
    """``plateau`` if a run did not reach its own, ``edge`` if a rate lies at the edge of its range.

    Lines that do not say are not doubted.
    """
    found = []
    if any(result.get("plateau") is False for result in cell.results):
        found.append("plateau")
    if any(result.get("at_edge") is True for result in cell.results):
        found.append("edge")
    return found


def notes(cells: Sequence[Cell]) -> list[str]:
    """Sentences under a table of these cells, each only where something calls for it."""
    short = [cell for cell in cells if "plateau" in doubts(cell)]
    edge = [cell for cell in cells if "edge" in doubts(cell)]
    found = []
    if short:
        rising = sum(any(result.get("kept_last") is True for result in cell.results) for cell in short)
        last = f" ({rising} of them kept the last weights, so were still rising)" if rising else ""
        found.append(
            f"{DOUBTED} not at its plateau: {_named(short)}{last}; more steps (`max_steps`) mend that."
        )
    if edge:
        found.append(
            f"{DOUBTED} its rate lies within 10 % of the edge of the searched range: {_named(edge)}; "
            "a wider rate range mends that."
        )
    return [*found, *_undertrained(cells), *_mixed(cells)]


def _undertrained(cells: Sequence[Cell]) -> Iterable[str]:
    """Trained heads that lie more than two points below the solved head of the same features."""
    for cell in cells:
        line = cell.results[0] if cell.results else None
        if line is None or cell.solved or line["head"] not in SOLVED_TWIN:
            continue
        twins = [other for other in cells if other.solved and _same_features(cell, other)]
        best = max(twins, key=lambda twin: twin.mean, default=None)
        if best is not None and best.mean - cell.mean > BELOW:
            points = f"{100 * (best.mean - cell.mean):.1f} points below {best.head}"
            yield f"Undertrained: {_named([cell])}, {points}, which solves the same features to the end."


def _same_features(trained: Cell, solved: Cell) -> bool:
    one, two = trained.results[0], solved.results[0]
    return (
        SOLVED_TWIN[one["head"]] == two["head"]
        and (trained.encoder, trained.dataset, one["layer"]) == (solved.encoder, solved.dataset, two["layer"])
        and one.get("features") in (None, two.get("features"))
    )


def _mixed(cells: Sequence[Cell]) -> Iterable[str]:
    """Versions and devices do not part rows; a row that mixes them says so."""
    for cell in cells:
        for what, values in (
            ("versions of featcache", _versions(cell.results)),
            ("devices", _devices(cell.results)),
        ):
            if len(values) > 1:
                yield f"Of several {what} ({'; '.join(values)}): {_named([cell])}."
    repeated = [cell for cell in cells if cell.repeats]
    if repeated:
        yield f"Same seed run again, the last counts: {_named(repeated)}."


def _versions(results: Iterable[Result]) -> list[str]:
    return sorted({str((r.get("versions") or {}).get("featcache")) for r in results if r.get("versions")})


def _devices(results: Iterable[Result]) -> list[str]:
    return sorted({str(result.get("device")) for result in results if result.get("device")})


def _named(cells: Sequence[Cell]) -> str:
    return ", ".join(f"{cell.encoder} {cell.head} on {cell.dataset}" for cell in cells)
