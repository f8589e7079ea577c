"""Pictures and sounds that a page carries in itself."""

import base64
import io
from typing import Any

import numpy as np
import soundfile
from matplotlib import colormaps
from matplotlib.image import imsave
from numpy.typing import NDArray

from featcache.audio.fbank import KaldiFbank
from featcache.audio.load import load_clip
from featcache.errors import AudioError
from featcache.manifest import Clip

Map = NDArray[np.floating[Any]]
RATE = 16_000  # [Hz] of the sounds in a page
FRAME_SECONDS = 0.01  # [s] of the filter bank
LOWEST_HZ, HIGHEST_HZ = 20.0, RATE / 2
ORANGE = (1.0, 0.55, 0.1)  # on grey it stands out for every eye
COARSE = (2, 2)  # frames and bands to a pixel


def picture(
    values: Map, *, colors: str = "magma", low: float | None = None, high: float | None = None
) -> str:
    """An array (rows, columns), its first row at the bottom, as the address of a PNG."""
    content = io.BytesIO()
    imsave(content, values[::-1], cmap=colormaps[colors], vmin=low, vmax=high, format="png")
    return _address("image/png", content.getvalue())


def overlay(values: Map) -> str:
    """Values (rows, columns) as a picture to lay over another: the larger, the less one sees through."""
    largest = float(values.max())
    shares = np.clip(values / largest, 0, 1) if largest > 0 else np.zeros_like(values)
    layer = np.empty((*values.shape, 4))
    layer[..., :3], layer[..., 3] = ORANGE, 0.85 * shares
    content = io.BytesIO()
    imsave(content, layer[::-1], format="png")
    return _address("image/png", content.getvalue())


def sound(samples: Map) -> str:
    """Samples at 16 kHz as the address of an OGG file."""
    content = io.BytesIO()
    soundfile.write(content, samples, RATE, format="OGG", subtype="VORBIS")
    return _address("audio/ogg", content.getvalue())


def heard(clip: Clip, seconds: float) -> tuple[Map, Map] | None:
    """The samples (L,) at 16 kHz of a clip and its log-mel (bands, frames); None where it is not here."""
    try:
        waveform = load_clip(
            clip.path, sample_rate=RATE, start=clip.start, end=clip.end, max_seconds=seconds
        ).waveform
        log_mel = KaldiFbank(sample_rate=RATE)([waveform])[0].numpy().T
    except AudioError:
        return None
    return waveform.numpy(), log_mel


def spectrogram(log_mel: Map, begin: float, end: float, colors: str = "magma") -> str:
    """Part of a log-mel as a picture.

    Args:
        begin, end: [s]
    """
    first, last = (max(0, round(time / FRAME_SECONDS)) for time in (begin, end))
    part = log_mel[:, first : max(last, first + 2)]
    part = part[: len(part) // COARSE[1] * COARSE[1]].reshape(-1, COARSE[1], part.shape[1]).mean(axis=1)
    width = part.shape[1] // COARSE[0] * COARSE[0]
    part = part[:, :width].reshape(len(part), -1, COARSE[0]).mean(axis=2) if width else part
    low, high = np.quantile(log_mel, (0.1, 0.999))
    return picture(part, colors=colors, low=float(low), high=max(float(high), float(low) + 1e-6))


def band_of(row: int, rows: int) -> tuple[float, float]:
    """[Hz] lowest and highest frequency of a row of tokens, on the mel scale of the spectrograms.

    >>> [round(hertz) for hertz in band_of(0, 8)], [round(hertz) for hertz in band_of(7, 8)]
    ([20, 283], [5672, 8000])
    """
    low, high = (1127 * np.log1p(hertz / 700) for hertz in (LOWEST_HZ, HIGHEST_HZ))
    edges = low + (high - low) * np.array([row, row + 1]) / rows
    first, last = 700 * np.expm1(edges / 1127)
    return float(first), float(last)


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
