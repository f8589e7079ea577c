"""Sounds and pictures as data addresses, so that a page needs no file but itself."""

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import soundfile
import torch
from matplotlib import colormaps
from numpy.typing import NDArray

from featcache.audio.fbank import KaldiFbank
from featcache.audio.load import load_clip
from featcache.errors import AudioError
from featcache.manifest import Clip

Values = NDArray[np.floating[Any]]
SHADES = 32  # noise in many more would make the page three times as large
DARKEST, BRIGHTEST = 0.1, 0.999  # quantiles of the log-mel
FRAME_SECONDS = 0.01


def sound_of(clip: Clip, sample_rate: int) -> NDArray[np.float32] | None:
    """The clip's waveform (L,) as its encoder heard it; None where it is not on this machine."""
    try:
        own = load_clip(clip.path, sample_rate=sample_rate, start=clip.start, end=clip.end)
    except AudioError:
        return None
    waveform: NDArray[np.float32] = own.waveform.numpy()
    return waveform


def spectrogram(waveform: NDArray[np.float32], sample_rate: int) -> Values:
    """Log-mel energies (frames, 128) from 20 Hz to half the rate, a frame each 10 ms."""
    least = round(0.03 * sample_rate)
    padded = np.pad(waveform, (0, max(0, least - len(waveform))))
    log_mel: Values = KaldiFbank(sample_rate=sample_rate)([torch.from_numpy(padded)])[0].numpy()
    return log_mel


def shades(log_mel: Values) -> NDArray[np.uint8]:
    """Energies as 0..31, from the quiet tenth to the loudest thousandth."""
    low, high = np.quantile(log_mel, DARKEST), np.quantile(log_mel, BRIGHTEST)
    unit = np.clip((log_mel - low) / max(float(high - low), 1e-6), 0, 1)
    found: NDArray[np.uint8] = np.rint(unit * (SHADES - 1)).astype(np.uint8)
    return found


def picture(levels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None, colours: str = "magma") -> str:
    """A PNG of levels 0..31, (rows, columns) from the top; alpha gives each level's opacity, (32,)."""
    palette = (colormaps[colours](np.linspace(0, 1, SHADES))[:, :3] * 255).astype(np.uint8)
    height, width = levels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in np.ascontiguousarray(levels))
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        *([] if alpha is None else [(b"tRNS", alpha.tobytes())]),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return _address("image/png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def sound(waveform: NDArray[np.float32], sample_rate: int) -> str:
    """A waveform as FLAC of 16 bits, made as loud as it can be: quiet clips are to be heard, too."""
    file = io.BytesIO()
    loudest = float(np.abs(waveform).max(initial=0.0)) or 1.0
    soundfile.write(file, 0.9 * waveform / loudest, sample_rate, format="FLAC", subtype="PCM_16")
    return _address("audio/flac", file.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
