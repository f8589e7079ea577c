"""Pictures of a comparison: wins in pairs, ranks from head to head; and what all pictures share."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featcache.cache.format.durable import replace_file
from featcache.heads.report.ranking import Ranking, Wins

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours: told apart with any common colour blindness; markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


def draw_wins(wins: Wins, title: str) -> "Figure":
    """A square of win shares: row beats column, by more than one standard deviation."""
    K = len(wins.names)
    names = _short(wins.names)
    long = max(0, max(map(len, names), default=0) - 16)  # long names take room from the squares
    figure, axes = blank(2.4 + 0.85 * K + 0.13 * long, 1.9 + 0.75 * K + 0.07 * long)
    with np.errstate(invalid="ignore"):
        share = np.where(wins.compared > 0, wins.count / np.maximum(wins.compared, 1), np.nan)
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
    for i in range(K):
        for j in range(K):
            if i == j or not wins.compared[i, j]:
                axes.text(j, i, "–", ha="center", va="center", color="0.5")
                continue
            dark = share[i, j] < 0.5
            text = f"{wins.count[i, j]}/{wins.compared[i, j]}"
            axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black")
    axes.set_xticks(range(K), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(K), names)
    axes.tick_params(length=0)
    axes.set(xlabel="the column", ylabel="the row beats …")
    axes.set_title(title, fontsize=11, loc="left")
    for side in axes.spines.values():
        side.set_visible(False)
    figure.colorbar(image, ax=axes, label="share of settings won", shrink=0.8)
    return figure


def draw_ranks(ranks: Ranking) -> "Figure":
    """A bump chart: one line an encoder, from head to head; up is better."""
    columns = len(ranks.heads)
    encoders, heads = _short(ranks.encoders), _short(ranks.heads)
    long = max(0, max(map(len, heads), default=0) - 16)
    figure, axes = blank(2.6 + 1.35 * columns + 0.1 * long, 1.6 + 0.55 * len(encoders) + 0.05 * long)
    for i, encoder in enumerate(encoders):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        rank = ranks.rank[i] + _aside(ranks, i)
        axes.plot(range(columns), rank, color=colour, marker=marker, markersize=9, linewidth=2.2, zorder=3)
        for column, mean in enumerate(ranks.mean[i]):
            if not np.isnan(mean):
                axes.annotate(f"{100 * mean:.1f}", (column, rank[column]), (0, 8), fontsize=7.5,
                              textcoords="offset points", ha="center", color="0.3")  # fmt: skip
        _name(axes, encoder, rank, colour)
    top = int(np.nanmax(ranks.rank, initial=1))
    axes.set_yticks(range(1, top + 1))
    axes.set_ylim(top + 0.6, 0.4)
    axes.set_xlim(-0.25, columns - 0.45 + 0.085 * max(map(len, encoders)))
    axes.set_xticks(range(columns), heads, rotation=20, ha="right", rotation_mode="anchor")
    axes.set_ylabel("rank")
    axes.grid(axis="x", color="0.9", zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title("Rank of each encoder under each head (small: mean %)", fontsize=11, loc="left")
    return figure


def _short(names: Sequence[str]) -> list[str]:
    """Names without the folders of users' files, unless two would be the same."""
    short = [short_name(name) for name in names]
    return short if len(set(short)) == len(names) else list(names)


def short_name(name: str) -> str:
    """A name without the folder of a user's file.

    >>> short_name("beats /home/me/my_head.py:MyHead@12")
    'beats my_head.py:MyHead@12'
    """
    return re.sub(r"((?<!\S)/.*/|\S*/)(?=[^/\s]+\.py:)", "", name)


def _aside(ranks: Ranking, row: int) -> Any:
    """Encoders of equal rank are drawn a little apart."""
    earlier = (ranks.rank[:row] == ranks.rank[row]).sum(axis=0)
    return 0.18 * earlier


def _name(axes: "Axes", encoder: str, rank: Sequence[float], colour: str) -> None:
    known = [column for column, value in enumerate(rank) if value == value]
    if known:
        axes.annotate(encoder, (known[-1], rank[known[-1]]), (12, 0), textcoords="offset points",
                      va="center", color=colour, fontsize=10, fontweight="bold")  # fmt: skip


def blank(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty picture of so many inches."""
    # No pyplot: it would keep figures alive and look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def write_figure(figure: "Figure", stem: Path) -> list[Path]:
    """Write PNG and SVG; equal figures give equal files."""
    import matplotlib

    paths = []
    with matplotlib.rc_context({"svg.hashsalt": "featcache", "svg.fonttype": "none"}):
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            paths.append(stem.with_suffix(suffix))
            content = io.BytesIO()
            figure.savefig(content, format=suffix[1:], dpi=160, metadata=metadata)
            figure.set_layout_engine("none")  # it is laid out: half of the time
            replace_file(paths[-1], content.getvalue(), durable=False)
    return paths
