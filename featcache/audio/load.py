"""Decoding: one segment of one file in, one mono waveform at the encoder's rate out."""

import math
from pathlib import Path
from typing import NamedTuple

import soundfile
import torch
import torchaudio.functional
from torch import Tensor

from featcache.errors import AudioError
from featcache.manifest.clip import seconds_text

# Written times are rounded (milliseconds, often): a segment may overrun its file by this much.
END_SLACK = 0.01  # [s]
RESAMPLER = "torchaudio.functional.resample, sinc_interp_hann, width 6, rolloff 0.99"


class Decoded(NamedTuple):
    """One clip as an encoder takes it."""

    waveform: Tensor  # (L,) float32
    cut_seconds: float  # [s] what lay beyond max_seconds and was left out


def load_clip(
    path: Path,
    *,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
    max_seconds: float = math.inf,
) -> Decoded:
    """Decode ``start``..``end`` of a file: mean over channels, resampled, at most ``max_seconds``.

    Only the segment is read. Any format and channel count that libsndfile reads.

    Args:
        sample_rate: [Hz] wanted
        start, end: [s] in the file; ``end=None`` is the end of the file
        max_seconds: [s] what the encoder takes; the rest is not decoded

    Raises:
        AudioError: the file is missing, empty, not audio, has NaN or infinite samples, or ends
            before the segment does.
    """
    try:
        with soundfile.SoundFile(path) as file:
            first, count, cut = _segment(file, path, start, end, max_seconds)
            file.seek(first)
            samples = file.read(count, dtype="float32", always_2d=True)
            rate = file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(_why(path, error)) from None
    if len(samples) < count:
        raise AudioError(
            f"{path}: decoding stopped after {len(samples)} of {count} samples; the file is damaged"
        )
    mono = torch.from_numpy(samples).mean(dim=1)
    if not torch.isfinite(mono).all():
        raise AudioError(f"{path}: has NaN or infinite samples; repair or remove it")
    if rate != sample_rate:
        mono = torchaudio.functional.resample(mono, rate, sample_rate)
    return Decoded(mono[: round(max_seconds * sample_rate)] if math.isfinite(max_seconds) else mono, cut)


def duration(path: Path) -> float:
    """Length of a file in seconds, read from its header.

    Raises:
        AudioError: as ``load_clip``.
    """
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(_why(path, error)) from None
    return float(info.frames / info.samplerate)


def _segment(
    file: soundfile.SoundFile, path: Path, start: float, end: float | None, max_seconds: float
) -> tuple[int, int, float]:
    """First frame, number of frames to read, and the seconds left out at the end."""
    rate, total = file.samplerate, file.frames
    if total <= 0:
        raise AudioError(f"{path}: holds no audio (0 samples)")
    seconds = total / rate
    stop = seconds if end is None else end
    segment = f"segment {seconds_text(start)}-{seconds_text(stop)} s"
    if start >= seconds or stop > seconds + END_SLACK:
        raise AudioError(
            f"{path}: {segment} goes past the end of the file ({seconds:.3f} s); mend start and end"
        )
    first, last = round(start * rate), min(total, round(stop * rate))
    if last <= first:
        raise AudioError(f"{path}: {segment} holds no sample at {rate} Hz; mend start and end")
    # A fraction of a sample is no cut.
    count = min(last - first, math.ceil(max_seconds * rate)) if math.isfinite(max_seconds) else last - first
    return first, count, (last - first - count) / rate


def _why(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path}: no such file"
    if path.is_file() and path.stat().st_size == 0:
        return f"{path}: is empty (0 bytes)"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return f"{path}: cannot be read as audio ({reason})"
