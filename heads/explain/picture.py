"""One picture: a clip's spectrogram and, class by class, where a head found the class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Map = NDArray[np.floating[Any]]

TICKS_KHZ = (0.25, 1.0, 4.0)
LOWEST_HZ = 20.0  # of the Kaldi filter bank
DARKEST, BRIGHTEST = 0.1, 0.999  # quantiles of the clip's log-mel
SHADES = 24  # noise in many more would make the file three times as large
COARSE = (4, 2)  # frames and bins to a pixel of the faint spectrograms, for the same reason
INK, TRUTH, MUTED = "#1a1a1a", "#0072b2", "#6b6b6b"  # blue and vermilion stay apart for every eye
FAINT = LinearSegmentedColormap.from_list("faint", ["#ffffff", "#a8a8a8"], N=8)
HEAT = LinearSegmentedColormap.from_list("heat", ["#fff1e6", "#f5b183", "#d55e00", "#7a2e00"])
DPI = 120
FAINTEST = 0.1  # of the largest evidence; less is not shown
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One class of the picture."""

    label: str
    note: str  # what the head said of it
    evidence: Map  # (F, T), in logits
    events: Sequence[tuple[float, float]]  # [s] true onsets and offsets; none: it is not in the clip


def draw(
    path: str | Path,
    rows: Sequence[Row],
    *,
    log_mel: Map,
    seconds: float,
    frame_seconds: float = 0.01,
    top_hz: float = 8000.0,
    title: str = "",
) -> None:
    """Write the picture as PNG.

    Args:
        log_mel: (frames, mels), natural logarithm of energy, of the whole token map
        seconds: [s] of audio; what lies behind is padding and not shown
        frame_seconds: [s] between frames
        top_hz: [Hz] upper end of the mel scale
    """
    with matplotlib.rc_context(STYLE):
        heights = [1.7] + [0.72] * len(rows)
        figure = Figure(figsize=(7.0, 0.9 + 1.16 * sum(heights)), dpi=DPI, layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights).tolist()
        extent = (0.0, len(log_mel) * frame_seconds, 0.0, float(log_mel.shape[1]))
        _spectrogram(axes[0], log_mel, extent, colormaps["magma"].resampled(SHADES))
        axes[0].set_ylabel("kHz")
        axes[0].set_title(title, loc="left", fontsize=9)
        largest = max(float(row.evidence.max()) for row in rows) or 1.0
        for axis, row in zip(axes[1:], rows, strict=True):
            heat = _found(axis, row, log_mel, extent, largest)
        for axis in axes:
            _kilohertz(axis, log_mel.shape[1], top_hz)
        axes[-1].set_xlim(0, seconds)
        axes[-1].set_xlabel("time [s]")
        bar = figure.colorbar(heat, ax=axes[1:], aspect=30, pad=0.01, ticks=MaxNLocator(4))
        bar.set_label("evidence of a patch [logit]")
        bar.outline.set_visible(False)
        figure.savefig(path)


def _spectrogram(
    axis: Axes, log_mel: Map, extent: tuple[float, float, float, float], colours: Colormap
) -> None:
    sound = log_mel[log_mel > log_mel.min()]  # the lowest value is padding
    low, high = np.quantile(sound, DARKEST), np.quantile(sound, BRIGHTEST)
    axis.imshow(
        log_mel.T, origin="lower", aspect="auto", extent=extent, cmap=colours,
        vmin=float(low), vmax=float(high), interpolation="nearest",
    )  # fmt: skip


def _found(
    axis: Axes, row: Row, log_mel: Map, extent: tuple[float, float, float, float], largest: float
) -> Any:
    """Evidence over a faint spectrogram; true events as boxes."""
    _spectrogram(axis, _coarse(log_mel), extent, FAINT)
    shown = np.ma.masked_less(row.evidence, FAINTEST * largest)
    heat = axis.imshow(shown, origin="lower", aspect="auto", extent=extent, cmap=HEAT, vmin=0, vmax=largest)
    for onset, offset in row.events:
        axis.axvspan(onset, offset, fill=False, edgecolor=TRUTH, linewidth=1.4)
    axis.text(0, 1.04, row.label, transform=axis.transAxes, weight="bold", color=INK, va="bottom")
    axis.text(1, 1.04, row.note, transform=axis.transAxes, color=MUTED, ha="right", va="bottom")
    return heat


def _coarse(log_mel: Map) -> Map:
    frames, bins = log_mel.shape[0] // COARSE[0], log_mel.shape[1] // COARSE[1]
    whole = log_mel[: frames * COARSE[0], : bins * COARSE[1]]
    coarse: Map = whole.reshape(frames, COARSE[0], bins, COARSE[1]).mean(axis=(1, 3))
    return coarse


def _kilohertz(axis: Axes, mels: int, top_hz: float) -> None:
    """Ticks at round frequencies of an axis that counts mel bins."""
    low, high = _mel(LOWEST_HZ), _mel(top_hz)
    places = [(_mel(1000 * khz) - low) / (high - low) * mels for khz in TICKS_KHZ]
    axis.set_yticks(places, [f"{khz:g}" for khz in TICKS_KHZ])
    axis.set_ylim(0, mels)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)
