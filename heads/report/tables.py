"""Tables of results: Markdown, LaTeX and CSV from one grid, best in bold, second underlined."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from featcache.heads.report.published import Published
from featcache.heads.report.ranking import Ranking
from featcache.heads.report.significance import Difference
from featcache.heads.report.summary import Cell

MARK = "†"  # a number of a paper, not ours


@dataclass(frozen=True)
class Entry:
    """One cell of a grid: its text, and its place in its column (1 best, 2 second)."""

    text: str
    place: int = 0


@dataclass(frozen=True)
class Grid:
    """A table before it has a format."""

    title: str
    header: list[str]
    rows: list[list[Entry]]
    note: str = ""


def score_grid(cells: Sequence[Cell], published: Sequence[Published]) -> Grid:
    """Encoders and heads in rows, data sets in columns; a paper's numbers come last, marked."""
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    metrics = {cell.dataset: (cell.metric, cell.split) for cell in cells}
    own = {(cell.encoder, cell.head, cell.dataset): cell for cell in cells}
    theirs = {(n.encoder, n.head, n.dataset): n for n in published if n.dataset in datasets}
    places = {dataset: _places(cells, dataset) for dataset in datasets}
    rows = []
    for encoder, head in dict.fromkeys((cell.encoder, cell.head) for cell in cells):
        found = [own.get((encoder, head, dataset)) for dataset in datasets]
        rows.append(
            [Entry(encoder), Entry(head)]
            + [
                Entry(cell.text(), places[cell.dataset].get(id(cell), 0)) if cell else Entry("")
                for cell in found
            ]
        )
    for encoder, head in dict.fromkeys((encoder, head) for encoder, head, _ in theirs):
        numbers = [theirs.get((encoder, head, dataset)) for dataset in datasets]
        texts = [f"{100 * number.value:.2f}{MARK}" if number else "" for number in numbers]
        rows.append([Entry(encoder + MARK), Entry(head), *map(Entry, texts)])
    header = ["encoder", "head"]
    header += [f"{d} ({metrics[d][0]}{'' if metrics[d][1] == 'test' else ', valid'})" for d in datasets]
    sources = sorted({number.source.split(",")[0] for number in theirs.values()})
    note = "Per cent. ± is the standard deviation over seeds, in cross-validation over folds. Bold: best of "
    note += "the column, underlined: second."
    if sources:
        note += f" {MARK} the paper's own numbers ({', '.join(sources)}), not measured here and not ranked."
    return Grid("Scores", header, rows, note)


def _places(cells: Sequence[Cell], dataset: str) -> dict[int, int]:
    ordered = sorted((cell for cell in cells if cell.dataset == dataset), key=lambda cell: -cell.mean)
    return {id(cell): place for place, cell in enumerate(ordered[:2], 1)} if len(ordered) > 1 else {}


def rank_grid(ranks: Ranking) -> Grid:
    """Ranking of encoders in rows under each head in columns, with the mean scores they are of."""
    rows = []
    for i, encoder in enumerate(ranks.encoders):
        texts = [
            "" if rank != rank else f"{rank:.0f} ({100 * mean:.2f})"
            for rank, mean in zip(ranks.rank[i], ranks.mean[i], strict=True)
        ]
        rows.append([Entry(encoder), *map(Entry, texts)])
    note = "Rank (mean %) over the data sets that all encoders of the column have: "
    note += "; ".join(f"{head}: {', '.join(sets) or 'none'}" for head, sets in ranks.datasets.items()) + "."
    return Grid("Ranking of encoders under each head", ["encoder", *ranks.heads], rows, note)


def difference_grid(differences: Sequence[Difference]) -> Grid:
    """The best head against each other one, with interval and p value."""
    rows = [
        [
            Entry(text)
            for text in (
                gap.encoder, gap.dataset, gap.best, gap.other, f"{100 * gap.mean:+.2f}",
                f"{100 * gap.low:+.2f} to {100 * gap.high:+.2f}", f"{gap.p:.3f}",
            )
        ]
        for gap in differences
    ]  # fmt: skip
    note = "Percentage points, 95 % interval and two-sided p (Holm-corrected) of the paired bootstrap over "
    note += "test clips; it covers the luck of the clips, not that of training."
    header = ["encoder", "data set", "best head", "other", "difference", "95 % interval", "p"]
    return Grid("Is the best head better?", header, rows, note)


def markdown(grid: Grid) -> str:
    """A grid as a Markdown table.

    >>> print(markdown(Grid("T", ["a", "b"], [[Entry("x"), Entry("1", 1)]])))
    ## T
    <BLANKLINE>
    | a | b |
    |---|---|
    | x | **1** |
    """
    style: dict[int, Callable[[str], str]] = {0: str, 1: "**{}**".format, 2: "<u>{}</u>".format}
    lines = [f"## {grid.title}", "", _bar(grid.header), _bar(["---"] * len(grid.header)).replace(" ", "")]
    lines += [_bar([style[entry.place](entry.text) for entry in row]) for row in grid.rows]
    return "\n".join([*lines, *(["", grid.note] if grid.note else [])])


def _bar(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def latex(grid: Grid) -> str:
    """A grid as a LaTeX tabular for the booktabs package."""
    style: dict[int, Callable[[str], str]] = {
        0: str, 1: lambda text: rf"\textbf{{{text}}}", 2: lambda text: rf"\underline{{{text}}}",
    }  # fmt: skip
    body = [" & ".join(style[entry.place](_tex(entry.text)) for entry in row) + r" \\" for row in grid.rows]
    head = " & ".join(map(_tex, grid.header)) + r" \\"
    columns = "l" * len(grid.header)
    return "\n".join(
        [f"% {grid.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body,
         r"\bottomrule", r"\end{tabular}", *([f"% {grid.note}"] if grid.note else [])]
    )  # fmt: skip


def _tex(text: str) -> str:
    for plain, escaped in (("_", r"\_"), ("%", r"\%"), ("±", r"$\pm$"), (MARK, r"$^\dagger$"), ("&", r"\&")):
        text = text.replace(plain, escaped)
    return text


def csv_text(cells: Sequence[Cell], published: Sequence[Published]) -> str:
    """Every score in a row of its own, in 0..1: for other programs."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(["encoder", "dataset", "head", "metric", "split", "mean", "sd", "runs", "folds", "source"])
    for cell in cells:
        rows.writerow(
            [cell.encoder, cell.dataset, cell.head, cell.metric, cell.split, f"{cell.mean:.6f}",
             f"{cell.sd:.6f}", cell.runs, cell.folds, "measured"]
        )  # fmt: skip
    datasets = {cell.dataset: cell.metric for cell in cells}
    for number in published:
        if number.dataset in datasets:
            metric = datasets[number.dataset]
            rows.writerow(
                [number.encoder, number.dataset, number.head, metric, "test", f"{number.value:.6f}", "", "",
                 "", number.source]
            )  # fmt: skip
    return buffer.getvalue()
