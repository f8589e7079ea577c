"""Tables of results: scores, ranks and differences, each as a grid with its note."""

from collections.abc import Sequence

from featcache.heads.report.formats import Grid, TableEntry
from featcache.heads.report.marks import named, notes, signs
from featcache.heads.report.published import MARK, Published
from featcache.heads.report.ranking import Ranking
from featcache.heads.report.significance import Difference
from featcache.heads.report.summary import Cell, fragments


def score_grid(cells: Sequence[Cell], published: Sequence[Published]) -> Grid:
    """Encoders and heads in rows, data sets in columns; a paper's numbers below, then solved heads."""
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    own = {(cell.encoder, cell.head, cell.dataset): cell for cell in cells}
    theirs = {(n.encoder, n.head, n.dataset): n for n in published if n.dataset in datasets}
    places = {key: place for dataset in datasets for key, place in _places(cells, dataset).items()}
    keys = dict.fromkeys((cell.encoder, cell.head) for cell in cells)
    solved = {(cell.encoder, cell.head) for cell in cells if cell.solved}
    rows: list[list[TableEntry]] = []
    solved_rows: list[list[TableEntry]] = []
    for encoder, head in keys:
        found = [own.get((encoder, head, dataset)) for dataset in datasets]
        entries = [
            TableEntry(_score(cell), places.get(id(cell), 0)) if cell else TableEntry("") for cell in found
        ]
        (solved_rows if (encoder, head) in solved else rows).append(
            [TableEntry(encoder), TableEntry(head), *entries]
        )
    for encoder, head in dict.fromkeys((encoder, head) for encoder, head, _ in theirs):
        numbers = [theirs.get((encoder, head, dataset)) for dataset in datasets]
        texts = [f"{100 * number.value:.2f}{MARK}" if number else "" for number in numbers]
        rows.append([TableEntry(encoder + MARK), TableEntry(head), *map(TableEntry, texts)])
    metrics = {cell.dataset: cell.metric + ("" if cell.split == "test" else ", valid") for cell in cells}
    header = ["encoder", "head", *(f"{dataset} ({metrics[dataset]})" for dataset in datasets)]
    note = [_spread_note(cells), "Bold: best of the column, underlined: second.", *notes(cells)]
    sources = sorted({number.source.split(",")[0] for number in theirs.values()})
    if sources:
        note.append(
            f"{MARK} the paper's own numbers ({', '.join(sources)}), not measured here and not ranked."
        )
    rule = len(rows) if solved_rows else None
    return Grid("Scores", header, rows + solved_rows, " ".join(note), rule)


def _score(cell: Cell) -> str:
    return f"{cell.text()}{signs(cell)} ({cell.count})"


def _spread_note(cells: Sequence[Cell]) -> str:
    """What ± is over in this table."""
    over = []
    if any(cell.folds == 1 and cell.sd is not None for cell in cells):
        over.append("over seeds (n)")
    if any(cell.folds > 1 for cell in cells):
        over.append("over folds, each fold's mean over its seeds")
    text = f"Per cent. ± is the standard deviation {'; or '.join(over)}." if over else "Per cent."
    return text + (" n=1: one run, no spread, wins nothing." if any(c.sd is None for c in cells) else "")


def _places(cells: Sequence[Cell], dataset: str) -> dict[int, int]:
    parts = fragments(cells)
    whole = [cell for cell in cells if cell.dataset == dataset and cell.known and id(cell) not in parts]
    ordered = sorted(whole, key=lambda cell: -cell.mean)
    return {id(cell): place for place, cell in enumerate(ordered[:2], 1)} if len(ordered) > 1 else {}


def rank_grid(ranks: Ranking) -> Grid:
    """Ranking of encoders in rows under each head in columns, with the mean scores they are of."""
    rows = []
    for i, encoder in enumerate(ranks.encoders):
        texts = [
            "" if rank != rank else f"{rank:.0f} ({100 * mean:.2f})"
            for rank, mean in zip(ranks.rank[i], ranks.mean[i], strict=True)
        ]
        rows.append([TableEntry(encoder), *map(TableEntry, texts)])
    note = "Rank (mean %) over the data sets that all encoders of the column have: "
    note += "; ".join(f"{head}: {', '.join(sets) or 'none'}" for head, sets in ranks.datasets.items()) + "."
    return Grid("Ranking of encoders under each head", ["encoder", *ranks.heads], rows, note)


def difference_grid(differences: Sequence[Difference], left: Sequence[Cell] = ()) -> Grid:
    """The best head against each other one, with interval and p value over clips, and both spreads.

    Args:
        left: cells that could not be compared, which the note names
    """
    rows = [
        [
            TableEntry(text)
            for text in (
                gap.encoder, gap.dataset, gap.best, gap.other, f"{100 * gap.mean:+.2f}",
                f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}", _p(gap.p),
                f"{_sd(gap.best_sd)}, {_sd(gap.other_sd)}",
            )
        ]
        for gap in differences
    ]  # fmt: skip
    by = " and ".join(sorted({f"{gap.by}s" for gap in differences}))
    note = (
        "Percentage points. Over clips: 95 % interval and two-sided p (Holm-corrected) of the paired "
        f"bootstrap over test {by}, each fold redrawn for itself: the luck of the clips. Beside it the "
        "standard deviations of both heads as in the table of scores: over seeds, which is the luck of "
        "training, or in cross-validation over folds, which is mostly how hard these are (– for a single "
        "run). Neither covers the other."
    )
    if left:
        note += (
            f" Not compared, as its test clips are others than the best head's or not saved: {named(left)}."
        )
    header = ["encoder", "data set", "best head", "other", "difference", "95 % interval (clips)", "p (clips)",
              "sd of both"]  # fmt: skip
    return Grid("Is the best head better?", header, rows, note)


def _p(p: float) -> str:
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def _sd(sd: float | None) -> str:
    return "–" if sd is None else f"{100 * sd:.2f}"
