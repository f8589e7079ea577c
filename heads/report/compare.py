"""``compare``: results of many probes side by side, as tables and pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featcache.arguments import FROM_ZERO, check
from featcache.cache.format.durable import replace_file
from featcache.errors import InputError
from featcache.heads.report.curves import by_frequency, draw_curves, draw_frequency, draw_layers, layered
from featcache.heads.report.formats import Grid, csv_text, latex, markdown
from featcache.heads.report.plots import draw_ranks, draw_wins, write_figure
from featcache.heads.report.published import Published, published
from featcache.heads.report.ranking import Axis, Ranking, ranks, wins
from featcache.heads.report.results import Result, read_results
from featcache.heads.report.significance import DRAWS, differences, left_out
from featcache.heads.report.summary import Cell, cells
from featcache.heads.report.tables import difference_grid, rank_grid, score_grid
from featcache.output import keeping, writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Comparison:
    """Tables to print, and the files that were written."""

    grids: list[Grid]
    files: list[Path]
    unmatched: str | None = None  # why none of the reference's numbers stands in the tables


def compare(
    results: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    reference: str | None = None,
    draws: int = DRAWS,
) -> Comparison:
    """Compare the results in these files or folders; write tables and pictures into ``out``.

    Runs that differ in seed or fold alone are one cell: mean and standard deviation. Runs that differ
    in anything else that decides numbers are rows (columns, where the manifest differs) of their own,
    named by what differs.

    Args:
        reference: a paper whose numbers stand beside ours, marked as its own
        draws: of the paired bootstrap over test clips; 0 leaves it out. 2,000 do for any number of
            comparisons: beyond what they resolve p is that of the normal tail

    Raises:
        MissingError: a path does not exist.
        InputError: a file holds no results.
    """
    check({"draws": FROM_ZERO}, {"draws": draws})
    if out is not None:
        writable(Path(out))
    results = [results] if isinstance(results, str | Path) else results
    found = read_results(results)
    if not found:
        raise InputError(f"no results in {', '.join(map(str, results))}; make some with 'featcache probe'")
    return compare_results(found, out, reference=reference, draws=draws)


def compare_results(
    results: Sequence[Result],
    out: str | Path | None = None,
    *,
    reference: str | None = None,
    draws: int = DRAWS,
) -> Comparison:
    """``compare`` of results that have been read."""
    found = cells(results)
    theirs = published(reference) if reference else []
    ranked = ranks(found)
    grids = [score_grid(found, theirs)]
    if len(ranked.encoders) > 1:
        grids.append(rank_grid(ranked))
    gaps = differences(found, draws=draws) if draws else []
    if gaps:
        grids.append(difference_grid(gaps, left_out(found, gaps)))
    files = []
    if out is not None:
        with keeping(Path(out), "the results themselves are as they were"):
            files = _write(Path(out), grids, found, csv_text(found, theirs), ranked)
    return Comparison(grids, files, _unmatched(reference, theirs, found))


def _unmatched(reference: str | None, theirs: Sequence[Published], found: Sequence[Cell]) -> str | None:
    named = {number.dataset for number in theirs}
    own = sorted({cell.dataset for cell in found})
    if not theirs or named & set(own):
        return None
    return (
        f"{reference} has numbers of {', '.join(sorted(named))}, and none of {', '.join(own)}: a data set is "
        "named by its manifest's file"
    )


def _write(
    folder: Path, grids: Sequence[Grid], found: Sequence[Cell], table: str, ranked: Ranking
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "compare.md": "\n\n".join(map(markdown, grids)) + "\n",
        "compare.tex": "\n\n".join(map(latex, grids)) + "\n",
        "compare.csv": table,
    }
    for name, text in texts.items():
        replace_file(folder / name, text.encode(), durable=False)
    return [*(folder / name for name in texts), *_pictures(found, ranked, folder)]


def _pictures(found: Sequence[Cell], ranked: Ranking, folder: Path) -> list[Path]:
    return [
        path for name, _, figure in figures(found, ranked) for path in write_figure(figure, folder / name)
    ]


def figures(found: Sequence[Cell], ranked: Ranking) -> "Iterator[tuple[str, str, Figure]]":
    """Win matrices of heads and of encoders, where any have spreads, the ranks, and scores over shots,
    over layers and over the frequency of classes, where results have them.

    Each is a file's name, what it shows, and the picture.
    """
    over = " or ".join(sorted({cell.over for cell in found if cell.sd is not None}))
    axes: dict[Axis, list[str]] = {"head": ranked.heads, "encoder": ranked.encoders}
    for axis, names in axes.items():
        won = wins(found, axis)
        if len(names) > 1 and won.compared.any():
            title = f"Wins of {axis}s by more than one sd (over {over}), of all settings with several runs"
            yield f"wins-{axis}s", title, draw_wins(won, title)
    if len(ranked.encoders) > 1:
        yield "ranks", "Rank of each encoder under each head", draw_ranks(ranked)
    if len({cell.results[0].shots for cell in found}) > 1:
        yield "shots", "Score over train clips of each class", draw_curves(found)
    if curves := layered(found):
        yield "layers", "Score over the layers of the encoder", draw_layers(curves)
    if clouds := by_frequency(found):
        title = "Average precision of each class over its train clips, of the best heads"
        yield "classes", title, draw_frequency(clouds)
