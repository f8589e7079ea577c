"""What a reader should doubt: heads short of their plateau, rates at an edge, runs of mixed making."""

import statistics
from collections.abc import Iterable, Sequence

from featcache.heads.data.checks import FEW_CLIPS
from featcache.heads.report.results import Result
from featcache.heads.report.shortfall import shortfalls
from featcache.heads.report.summary import Cell, fragments

DOUBTED = "‡"
FIXED = "§"
SIGNS = {"plateau": DOUBTED, "edge": DOUBTED, "fixed": FIXED}


def doubts(cell: Cell) -> list[str]:
    """``plateau`` if a run did not reach its own, ``edge`` if a rate lies at the edge of its range.

    ``fixed`` if it trained for a number of epochs that was fixed beforehand. Lines that do not say are
    not doubted.
    """
    found = []
    if any(result.get("plateau") is False for result in cell.results):
        found.append("plateau")
    if any(result.get("at_edge") is True for result in cell.results):
        found.append("edge")
    if any(_fixed(result) for result in cell.results):
        found.append("fixed")
    return found


def signs(cell: Cell) -> str:
    """What stands at a cell's score: each sign once."""
    return "".join(dict.fromkeys(SIGNS[name] for name in doubts(cell)))


def _fixed(result: Result) -> bool:
    """The line has a plateau that is none: its schedule asks for none. What is solved has no schedule."""
    asked = "plateau" in result.line and result["plateau"] is None
    return asked and result.get("solved") is not True


def notes(cells: Sequence[Cell]) -> list[str]:
    """Sentences under a table of these cells, each only where something calls for it."""
    return [
        *legend(cells),
        *_unranked(cells),
        *_undertrained(cells),
        *_saw_valid(cells),
        *_seeds(cells),
        *_mixed(cells),
    ]


def legend(cells: Sequence[Cell]) -> list[str]:
    """What each sign at a score of these cells means, and which option mends it."""
    short, edge, fixed = ([cell for cell in cells if name in doubts(cell)] for name in SIGNS)
    found = []
    if short:
        rising = sum(any(map(_rising, cell.results)) for cell in short)
        last = f" ({rising} of them kept the last weights, so were still rising)" if rising else ""
        found.append(
            f"{DOUBTED} not at its plateau: {named(short)}{last}; more steps (`max_steps`) mend that."
        )
    if edge:
        found.append(
            f"{DOUBTED} its rate lies within 10 % of the edge of the searched range: {named(edge)}; "
            "a wider range (`lr_range`) mends that."
        )
    if fixed:
        found.append(
            f"{FIXED} trained for a fixed number of epochs: nothing says whether it would have got better "
            "(the preset plateau without `epochs` does)."
        )
    return found


def _rising(result: Result) -> bool:
    """The best weights are the last. Where the last are kept whatever they score, that tells nothing."""
    training = result.get("training") or {}
    few = (result.get("clips") or {}).get("valid", 0) < FEW_CLIPS
    return result.get("kept_last") is True and training.get("select") != "last" and not few


def _unranked(cells: Sequence[Cell]) -> Iterable[str]:
    """Cells that can be neither the best of a column nor compared."""
    if unknown := [cell for cell in cells if not cell.known]:
        yield f"No score, for no class of the {unknown[0].split} split has a clip: {named(unknown)}."
    parts = fragments(cells)
    for cell in (cell for cell in cells if id(cell) in parts):
        lacking = ", ".join(parts[id(cell)])
        yield f"Without fold {lacking}, so neither best nor compared: {named([cell])}."


def _seeds(cells: Sequence[Cell]) -> Iterable[str]:
    """In cross-validation ± is over folds: what seeds do is said beside the table."""
    trained = [cell for cell in cells if cell.folds > 1 and not cell.solved]
    single = [cell for cell in trained if cell.runs == cell.folds]
    if single:
        yield f"One seed a fold, so the luck of training is in no number: {named(single)}."
    several = [(cell, spread) for cell in trained if (spread := _within_folds(cell)) is not None]
    if several:
        texts = (f"{named([cell])} {100 * spread:.2f}" for cell, spread in several)
        yield f"Standard deviation over the seeds of a fold, on average: {'; '.join(texts)}."


def _within_folds(cell: Cell) -> float | None:
    """The mean over folds of the standard deviation over seeds; None where no fold has two."""
    by_fold: dict[object, list[float]] = {}
    for result in cell.results:
        by_fold.setdefault(result["fold"], []).append(result.value)
    spreads = [statistics.stdev(values) for values in by_fold.values() if len(values) > 1]
    return statistics.fmean(spreads) if spreads and cell.known else None


def _undertrained(cells: Sequence[Cell]) -> Iterable[str]:
    for cell, twin, score in shortfalls(cells):
        points = f"{100 * (score - cell.mean):.1f} points below {twin.head}"
        yield f"Undertrained: {named([cell])}, {points} on the same clips and features, solved to the end."


def _saw_valid(cells: Sequence[Cell]) -> Iterable[str]:
    """Fewer than 100 valid clips: what is solved is fitted on them, too, and what is trained is not."""
    own = [cell for cell in cells if any("train_alone" in (r.get("chosen") or {}) for r in cell.results)]
    if own and not all(cell.solved for cell in cells):
        yield f"Fitted on train and valid, where trained heads learn from train alone: {named(own)}."


def _mixed(cells: Sequence[Cell]) -> Iterable[str]:
    """Versions and devices do not part rows; a row that mixes them says so."""
    for cell in cells:
        for what, values in (
            ("versions of featcache", _versions(cell.results)),
            ("devices", _devices(cell.results)),
        ):
            if len(values) > 1:
                yield f"Of several {what} ({'; '.join(values)}): {named([cell])}."
    repeated = [cell for cell in cells if cell.repeats]
    if repeated:
        yield f"Same seed run again, the last counts: {named(repeated)}."


def _versions(results: Iterable[Result]) -> list[str]:
    return sorted({str((r.get("versions") or {}).get("featcache")) for r in results if r.get("versions")})


def _devices(results: Iterable[Result]) -> list[str]:
    return sorted({str(result.get("device")) for result in results if result.get("device")})


def named(cells: Sequence[Cell]) -> str:
    """Cells in words, one after another."""
    return ", ".join(f"{cell.encoder} {cell.head} on {cell.dataset}" for cell in cells)
