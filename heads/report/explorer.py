"""The results explorer: every row of ``compare``, to sort and filter, in one HTML file."""

import base64
import io
import json
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.cache.format.durable import replace_file
from featcache.errors import InputError
from featcache.heads.report.bootstrap import redrawn
from featcache.heads.report.compare import compare_results, figures
from featcache.heads.report.formats import Grid, csv_text, latex, markdown
from featcache.heads.report.marks import doubts
from featcache.heads.report.published import published
from featcache.heads.report.ranking import ranks
from featcache.heads.report.results import read_results
from featcache.heads.report.significance import DRAWS
from featcache.heads.report.summary import Cell, cells
from featcache.output import keeping

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKER = "/*DATA*/null"


def report(
    results: Sequence[str | Path], out: Path, *, reference: str | None = None, draws: int = DRAWS
) -> int:
    """Write the page; the number of its bytes.

    Args:
        reference, draws: as for ``compare``

    Raises:
        MissingError: a path does not exist.
        InputError: a file holds no results.
        OutputError: the page cannot be written.
    """
    lines = read_results(results)
    if not lines:
        raise InputError(f"no results in {', '.join(map(str, results))}; make some with 'featcache probe'")
    found, theirs = cells(lines), published(reference) if reference else []
    done = compare_results(lines, reference=reference, draws=draws)
    data = {
        "rows": [_row(cell, draws) for cell in found],
        "grids": [_grid(grid) for grid in done.grids],
        "pictures": [
            {"name": name, "alt": alt, "svg": _svg(figure)}
            for name, alt, figure in figures(found, ranks(found))
        ],
        "downloads": {
            "csv": csv_text(found, theirs),
            "tex": "\n\n".join(map(latex, done.grids)) + "\n",
            "md": "\n\n".join(map(markdown, done.grids)) + "\n",
        },
        "notes": [done.unmatched] if done.unmatched else [],
    }  # fmt: skip
    template = files("featcache.heads.report").joinpath("explorer.html").read_text(encoding="utf-8")
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    content = template.replace(MARKER, text, 1).encode("utf-8", "replace")
    with keeping(out, "nothing was written"):
        replace_file(out, content, durable=False)
    return len(content)


def interval(cell: Cell, draws: int) -> tuple[float, float] | None:
    """95 % interval of a cell's mean over redrawn test clips; None without scores, or in cross-validation.

    The seeds of a cell meet the same redrawn clips: it is the luck of the clips, not of training.
    """
    scored = all((own.get("files") or {}).get("scores") for own in cell.results)
    if not draws or cell.folds > 1 or not scored:
        return None
    drawn = []
    for own in cell.results:
        ids, logits, targets = own.scores()
        drawn.append(redrawn(ids, logits, targets, own["metric"], draws, own.groups()))
    low, high = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    return (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else None


def _row(cell: Cell, draws: int) -> dict[str, Any]:
    first = cell.results[0]
    command = first.get("command")
    return {
        "encoder": cell.encoder, "dataset": cell.dataset, "head": cell.head, "metric": cell.metric,
        "split": cell.split, "score": _finite(cell.mean), "sd": _finite(cell.sd),
        "interval": interval(cell, draws), "count": cell.count,
        "parameters": first.get("parameters"), "read_bytes": _mean(cell, "read_bytes"),
        "seconds": max(float(own["seconds"]) for own in cell.results),
        "marks": doubts(cell), "command": shlex.join(map(str, command)) if command else "",
    }  # fmt: skip


def _mean(cell: Cell, name: str) -> float | None:
    """Of a field that older lines and solved heads lack."""
    values = [own.get(name) for own in cell.results]
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _grid(grid: Grid) -> dict[str, Any]:
    rows = [[[entry.text, entry.place] for entry in row] for row in grid.rows]
    return {"title": grid.title, "header": grid.header, "rows": rows, "note": grid.note}


def _svg(figure: "Figure") -> str:
    content = io.BytesIO()
    figure.savefig(content, format="svg", bbox_inches="tight")
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"
