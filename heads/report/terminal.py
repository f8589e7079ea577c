"""Results as ``probe`` prints them when it ends."""

from collections.abc import Sequence

from featcache.heads.report.marks import legend, signs
from featcache.heads.report.results import Result
from featcache.heads.report.summary import cells


def summary_lines(results: Sequence[Result]) -> list[str]:
    """An aligned table for the terminal, one row a cell, and what the signs in it mean."""
    found = cells(results)
    header = ("encoder", "data set", "head", "score", "%", "epoch", "s")
    rows = [header]
    for cell in found:
        epochs = sorted({result["epoch"] or 0 for result in cell.results})
        chosen = str(epochs[0] or "solved") if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
        seconds = max(result["seconds"] for result in cell.results)
        over = f" over {cell.folds} folds" if cell.folds > 1 else ""
        runs = over or (f" of {cell.runs} seeds" if cell.runs > 1 else " (n=1)")
        score = f"{cell.split} {cell.metric}{runs}"
        text = cell.text() + signs(cell)
        rows.append((cell.encoder, cell.dataset, cell.head, score, text, chosen, f"{seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    table = [
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [*table, *legend(found)]
