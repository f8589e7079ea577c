"""Pictures of scores over something: labelled clips, layers, and how often a class occurs."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featcache.heads.report.plots import COLOURS, MARKERS, blank, short_name
from featcache.heads.report.summary import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[int, Cell]]  # where on the axis, and what
CLOUDS = 6  # heads of one panel of classes; more hide each other
GROUPS, FEW = 8, 12  # of classes of like frequency, whose means are joined by a line; fewer have none
LEGEND = {"frameon": False, "fontsize": 8, "loc": "upper center", "bbox_to_anchor": (0.5, -0.17)}  # below


def draw_curves(cells: Sequence[Cell]) -> "Figure":
    """Learning curves: score over train clips a class, one line a head, a panel for each data set.

    The band is ± one standard deviation over seeds. A head on all clips stands at the right, one
    step of a doubling beyond the largest number of shots, whatever their number is. Data sets without
    any number of shots are left out.
    """
    few = {cell.dataset for cell in cells if cell.results[0].shots is not None}
    cells = [cell for cell in cells if cell.dataset in few]
    known = [cell.results[0].shots for cell in cells]
    ticks = sorted({shots for shots in known if shots is not None})
    places = [shots or 2 * ticks[-1] for shots in known]
    heads = [cell.head.replace(f" {cell.results[0].shots}-shot", "") for cell in cells]
    figure, panels = _panels(_lines(cells, heads, places), "train clips of each class")
    every = sorted(set(places))
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xticks(every, [str(place) if place in ticks else "all" for place in every])
        axes.set_xticks([], minor=True)
    return figure


def layered(cells: Sequence[Cell]) -> dict[str, dict[str, list[tuple[int, Cell]]]]:
    """Heads that were probed on several layers: data set -> head -> (layer, cell)."""
    places = [int(cell.results[0]["layer"]) for cell in cells]
    heads = [cell.head.replace(f"@{place}", "", 1) for cell, place in zip(cells, places, strict=True)]
    found = _lines(cells, heads, places)
    several = {
        dataset: {name: points for name, points in own.items() if len(dict(points)) > 1}
        for dataset, own in found.items()
    }
    return {dataset: own for dataset, own in several.items() if own}


def draw_layers(curves: Mapping[str, Mapping[str, Points]]) -> "Figure":
    """Score over the encoder's layers, one line a head, a panel for each data set; bands as elsewhere.

    Args:
        curves: of ``layered``
    """
    figure, panels = _panels(curves, "layer of the encoder")
    for axes, own in zip(panels, curves.values(), strict=True):
        axes.set_xticks(sorted({layer for points in own.values() for layer, _ in points}))
    return figure


def by_frequency(cells: Sequence[Cell]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """How well classes are read against how often they occur: data set -> head -> (2, C).

    The rows are train clips of a class and its average precision on test, each the mean over runs.
    Classes without a test clip are left out, and heads whose lines do not say how often classes occur; of
    more than six heads the best stay.
    """
    several = len({cell.encoder for cell in cells}) > 1
    found: dict[str, dict[str, NDArray[np.float64]]] = {cell.dataset: {} for cell in cells}
    for cell in sorted(cells, key=lambda cell: -cell.mean):
        points = _classes(cell)
        own = found[cell.dataset]
        if len({count for count, _ in points}) > 1 and len(own) < CLOUDS:
            own[f"{cell.encoder} {cell.head}" if several else cell.head] = np.array(points).T
    return {dataset: own for dataset, own in found.items() if own}


def _classes(cell: Cell) -> list[tuple[float, float]]:
    values: dict[str, list[tuple[float, float]]] = {}
    for result in cell.results:
        counts = result.get("train_per_class") or {}
        for name, precision in (result.get("per_class") or {}).items():
            if precision is not None and counts.get(name):
                values.setdefault(name, []).append((float(counts[name]), float(precision)))
    return [
        (statistics.fmean(count for count, _ in own), statistics.fmean(value for _, value in own))
        for own in values.values()
    ]


def draw_frequency(clouds: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> "Figure":
    """A point for each class and head, a panel for each data set; ρ is Spearman's rank correlation.

    Lines join the means of groups of classes of like frequency, where there are twelve classes and more.

    Args:
        clouds: of ``by_frequency``
    """
    from matplotlib.ticker import LogFormatter
    from scipy.stats import spearmanr

    figure, first = blank(5.4 * len(clouds), 3.8 + 0.18 * max(map(len, clouds.values())))
    first.remove()
    for column, (dataset, own) in enumerate(clouds.items(), start=1):
        axes = figure.add_subplot(1, len(clouds), column)
        for number, (name, (counts, precision)) in enumerate(own.items()):
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            aside = 1.03 ** (number - (len(own) - 1) / 2)  # points of one class would hide each other
            alike = len(set(precision)) < 2
            shown = short_name(name)
            label = shown if alike else f"{shown} (ρ {spearmanr(counts, precision)[0]:.2f})"
            axes.plot(
                aside * counts, 100 * precision, marker, color=colour, markersize=5, alpha=0.6,
                markeredgewidth=0, label=label,
            )  # fmt: skip
            axes.plot(*_trend(counts, precision), color=colour, linewidth=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # powers of ten would be set as formulas, which takes long
        axes.xaxis.set_minor_formatter(LogFormatter())
        axes.set(
            xlabel="train clips of the class", ylabel="average precision on test in per cent", ylim=(-3, 103)
        )
        axes.set_title(dataset, fontsize=11, loc="left")
        axes.grid(color="0.9", zorder=0)
        axes.legend(**LEGEND)
    return figure


def _trend(counts: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of groups of classes, (2, groups): geometric over counts, in per cent over precision."""
    if len(counts) < FEW:
        return np.empty((2, 0))
    groups = np.array_split(np.argsort(counts, kind="stable"), min(GROUPS, len(counts) // 4))
    return np.array([[np.exp(np.log(counts[own]).mean()), 100 * precision[own].mean()] for own in groups]).T


def _lines(
    cells: Sequence[Cell], heads: Sequence[str], places: Sequence[int]
) -> dict[str, dict[str, list[tuple[int, Cell]]]]:
    """Data set -> line -> (place, cell); lines are named by their encoder where there are several."""
    several = len({cell.encoder for cell in cells}) > 1
    found: dict[str, dict[str, list[tuple[int, Cell]]]] = {}
    for place, head, cell in zip(places, heads, cells, strict=True):
        name = f"{cell.encoder} {head}" if several else head
        found.setdefault(cell.dataset, {}).setdefault(name, []).append((place, cell))
    return found


def _panels(curves: Mapping[str, Mapping[str, Points]], label: str) -> "tuple[Figure, list[Axes]]":
    """A panel for each data set, with a line for each head."""
    figure, first = blank(5.4 * len(curves), 3.8 + 0.18 * max(map(len, curves.values())))
    first.remove()
    lines = list(dict.fromkeys(name for own in curves.values() for name in own))
    panels = []
    for column, (dataset, own) in enumerate(curves.items(), start=1):
        axes = figure.add_subplot(1, len(curves), column)
        for name, points in own.items():
            _curve(axes, name, lines.index(name), sorted(points, key=lambda point: point[0]))
        metric = next(iter(own.values()))[0][1].metric
        axes.set(xlabel=label, ylabel=f"{metric} in per cent")
        axes.set_title(dataset, fontsize=11, loc="left")
        axes.grid(color="0.9", zorder=0)
        axes.legend(**LEGEND)
        panels.append(axes)
    return figure, panels


def _curve(axes: "Axes", name: str, number: int, points: Points) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    places = [place for place, _ in points]
    mean = 100 * np.array([cell.mean for _, cell in points])
    sd = 100 * np.array([cell.sd or 0.0 for _, cell in points])
    axes.plot(places, mean, color=colour, marker=marker, linewidth=2, label=short_name(name), zorder=3)
    axes.fill_between(places, mean - sd, mean + sd, color=colour, alpha=0.18, linewidth=0)
