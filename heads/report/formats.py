"""Grids and their formats: Markdown, LaTeX and CSV, best in bold, second underlined."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from featcache.heads.report.marks import DOUBTED, FIXED, doubts
from featcache.heads.report.published import MARK, Published
from featcache.heads.report.summary import Cell


@dataclass(frozen=True)
class TableEntry:
    """One cell of a grid: its text, and its place in its column (1 best, 2 second)."""

    text: str
    place: int = 0


@dataclass(frozen=True)
class Grid:
    """A table before it has a format."""

    title: str
    header: list[str]
    rows: list[list[TableEntry]]
    note: str = ""
    rule: int | None = None  # the row above which solved heads are set apart


def markdown(grid: Grid, second: str = "<u>{}</u>") -> str:
    """A grid as a Markdown table.

    Args:
        second: how the second best is marked; Markdown itself cannot underline, and a terminal shows tags

    >>> print(markdown(Grid("T", ["a", "b"], [[TableEntry("x"), TableEntry("1", 1)]])))
    ## T
    <BLANKLINE>
    | a | b |
    |---|---|
    | x | **1** |
    """
    style: dict[int, Callable[[str], str]] = {0: str, 1: "**{}**".format, 2: second.format}
    lines = [f"## {grid.title}", "", _bar(grid.header), _bar(["---"] * len(grid.header)).replace(" ", "")]
    for number, row in enumerate(grid.rows):
        if number == grid.rule:
            lines.append(_bar(["*solved*"] + [""] * (len(row) - 1)))
        lines.append(_bar([style[entry.place](entry.text) for entry in row]))
    return "\n".join([*lines, *(["", grid.note] if grid.note else [])])


def _bar(texts: Sequence[str]) -> str:
    return f"| {' | '.join(text.replace('|', '/') for text in texts)} |"


def latex(grid: Grid) -> str:
    """A grid as a LaTeX tabular for the booktabs package."""
    style: dict[int, Callable[[str], str]] = {
        0: str, 1: lambda text: rf"\textbf{{{text}}}", 2: lambda text: rf"\underline{{{text}}}",
    }  # fmt: skip
    body = [" & ".join(style[entry.place](_tex(entry.text)) for entry in row) + r" \\" for row in grid.rows]
    if grid.rule is not None:
        body.insert(grid.rule, r"\midrule")
    head = " & ".join(map(_tex, grid.header)) + r" \\"
    columns = "l" * len(grid.header)
    return "\n".join(
        [f"% {grid.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body,
         r"\bottomrule", r"\end{tabular}", *([f"% {grid.note}"] if grid.note else [])]
    )  # fmt: skip


ESCAPED = {
    "_": r"\_", "%": r"\%", "±": r"$\pm$", MARK: r"$^\dagger$", DOUBTED: r"$^\ddagger$", FIXED: r"$^\S$",
    "&": r"\&", "#": r"\#", "<": "$<$",
}  # fmt: skip


def _tex(text: str) -> str:
    for plain, escaped in ESCAPED.items():
        text = text.replace(plain, escaped)
    return text


COLUMNS = (
    "encoder", "dataset", "head", "metric", "split", "mean", "sd", "runs", "folds", "source",
    "sd_over", "doubts",
)  # fmt: skip


def csv_text(cells: Sequence[Cell], published: Sequence[Published]) -> str:
    """Every score in a row of its own, in 0..1: for other programs; ``sd`` is empty for a single run."""
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(COLUMNS)
    for cell in cells:
        sd, over = ("", "") if cell.sd is None else (f"{cell.sd:.6f}", cell.over)
        rows.writerow(
            [cell.encoder, cell.dataset, cell.head, cell.metric, cell.split, f"{cell.mean:.6f}", sd,
             cell.runs, cell.folds, "measured", over, " ".join(doubts(cell))]
        )  # fmt: skip
    datasets = {cell.dataset: cell.metric for cell in cells}
    for number in published:
        if number.dataset in datasets:
            metric = datasets[number.dataset]
            rows.writerow(
                [number.encoder, number.dataset, number.head, metric, "test", f"{number.value:.6f}", "", "",
                 "", number.source, "", ""]
            )  # fmt: skip
    return buffer.getvalue()
