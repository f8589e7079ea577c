"""``compare``: results of many probes side by side, as tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.arguments import FROM_ZERO, check
from featcache.errors import InputError
from featcache.heads.report.plots import draw_ranks, draw_wins, write_figure
from featcache.heads.report.published import published
from featcache.heads.report.ranking import ranks, wins
from featcache.heads.report.results import read_results
from featcache.heads.report.significance import differences
from featcache.heads.report.summary import cells
from featcache.heads.report.tables import (
    Grid,
    csv_text,
    difference_grid,
    latex,
    markdown,
    rank_grid,
    score_grid,
)


@dataclass(frozen=True)
class Comparison:
    """Tables to print, and the files that were written."""

    grids: list[Grid]
    files: list[Path]


def compare(
    results: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    reference: str | None = None,
    draws: int = 1000,
) -> Comparison:
    """Compare the results in these files or folders; write tables and pictures into ``out``.

    Runs that differ in seed or fold alone are one cell: mean and standard deviation.

    Args:
        reference: a paper whose numbers stand beside ours, marked as its own
        draws: of the paired bootstrap; 0 leaves it out

    Raises:
        MissingError: a path does not exist.
        InputError: a file holds no results.
    """
    check({"draws": FROM_ZERO}, {"draws": draws})
    results = [results] if isinstance(results, str | Path) else results
    found = cells(read_results(results))
    if not found:
        raise InputError(f"no results in {', '.join(map(str, results))}; make some with 'featcache probe'")
    theirs = published(reference) if reference else []
    ranked = ranks(found)
    grids = [score_grid(found, theirs)]
    if len(ranked.encoders) > 1:
        grids.append(rank_grid(ranked))
    gaps = differences(found, draws=draws) if draws else []
    if gaps:
        grids.append(difference_grid(gaps))
    files = []
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "compare.md": "\n\n".join(map(markdown, grids)) + "\n",
            "compare.tex": "\n\n".join(map(latex, grids)) + "\n",
            "compare.csv": csv_text(found, theirs),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
            files.append(folder / name)
        if len(ranked.heads) > 1:
            title = "Wins of heads by more than one sd, of all settings"
            files += write_figure(draw_wins(wins(found, "head"), title), folder / "wins-heads")
        if len(ranked.encoders) > 1:
            title = "Wins of encoders by more than one sd, of all settings"
            files += write_figure(draw_wins(wins(found, "encoder"), title), folder / "wins-encoders")
            files += write_figure(draw_ranks(ranked), folder / "ranks")
    return Comparison(grids, files)
