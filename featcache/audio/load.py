"""Decoding: one segment of one file in, one mono waveform at the encoder's rate out."""

import math
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import NamedTuple

import soundfile
from torch import Tensor

from featcache.audio.opening import opened, reasons
from featcache.audio.recording import OpenRecording, OpenRecordings
from featcache.audio.resample import resample
from featcache.errors import AudioError
from featcache.manifest.clip import seconds_text
from featcache.manifest.files import printable

# Written times are rounded (milliseconds, often): a segment may overrun its file by this much.
END_SLACK = 0.01  # [s]
# Full scale is 1. Samples that are 32-bit integers stored as floats reach this; the power spectrum of
# louder ones (2e12 and above) is infinite in float32.
LOUDEST = 2.0**31
MOST_SAMPLES = 1 << 28  # of a clip, before and after resampling: 1 GB


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
    accept_truncated: bool = False,
    recordings: OpenRecordings | None = None,
) -> Decoded:
    """Decode ``start``..``end`` of a file: mean over channels, resampled, at most ``max_seconds``.

    Only the segment is read. Any format and channel count that libsndfile reads.

    Args:
        sample_rate: [Hz] wanted
        start, end: [s] in the file; ``end=None`` is the end of the file
        max_seconds: [s] what the encoder takes; the rest is not decoded
        accept_truncated: take what is there of a file that was cut off, as a shorter clip
        recordings: where the file stays open for further segments

    Raises:
        AudioError: the file is missing, no regular file, empty, not audio or cut off, has NaN, infinite or
            absurdly large samples, ends before the segment does, or the clip is too long to be held.
    """
    use = recordings.use if recordings else _alone
    with reasons(path), use(path, accept_truncated) as recording:
        first, count, cut = _segment(recording.file, path, start, end, max_seconds)
        rate = recording.file.samplerate
        if count * max(1.0, sample_rate / rate) > MOST_SAMPLES:
            raise AudioError(
                f"{printable(path)}: {count / rate:,.1f} s at {max(rate, sample_rate):,} Hz is more than the "
                f"{MOST_SAMPLES:,} samples that are decoded at once; take shorter segments or windows"
            )
        mono = recording.read(first, count)
        if len(mono) < count and not (accept_truncated and len(mono)):
            raise AudioError(
                f"{printable(path)}: decoding stopped after {len(mono)} of {count} samples; the file is "
                "damaged"
            )
    _check_samples(mono, path)
    mono = resample(mono, rate, sample_rate)
    most = round(max_seconds * sample_rate) if math.isfinite(max_seconds) else len(mono)
    return Decoded(mono if len(mono) <= most else mono[:most], cut)


def _alone(path: Path, accept_truncated: bool) -> AbstractContextManager[OpenRecording]:
    return closing(OpenRecording(path, accept_truncated))


def duration(path: Path, *, accept_truncated: bool = False) -> float:
    """Length of a file in seconds, read from its header.

    Raises:
        AudioError: as ``load_clip``.
    """
    with reasons(path), opened(path, accept_truncated) as file:
        return float(file.frames / file.samplerate)


def _check_samples(mono: Tensor, path: Path) -> None:
    samples = mono.numpy()
    lowest, highest = float(samples.min()), float(samples.max())  # NaN where there is one
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise AudioError(f"{printable(path)}: has NaN or infinite samples; repair or remove it")
    if (largest := max(-lowest, highest)) > LOUDEST:
        raise AudioError(
            f"{printable(path)}: has samples of {largest:.1e}, beyond {LOUDEST:.1e} (full scale is 1); "
            "repair or remove it"
        )


def _segment(
    file: soundfile.SoundFile, path: Path, start: float, end: float | None, max_seconds: float
) -> tuple[int, int, float]:
    """First frame, number of frames to read, and the seconds left out at the end."""
    rate, total = file.samplerate, file.frames
    if total <= 0:
        raise AudioError(f"{printable(path)}: holds no audio (0 samples)")
    seconds = total / rate
    stop = seconds if end is None else end
    if start >= seconds or stop > seconds + END_SLACK:
        raise AudioError(
            f"{printable(path)}: {_segment_text(start, stop)} goes past the end of the file "
            f"({seconds:.3f} s); mend start and end"
        )
    first, last = round(start * rate), min(total, round(stop * rate))
    if last <= first:
        raise AudioError(
            f"{printable(path)}: {_segment_text(start, stop)} holds no sample at {rate} Hz; mend start "
            "and end"
        )
    # A fraction of a sample is no cut.
    count = min(last - first, math.ceil(max_seconds * rate)) if math.isfinite(max_seconds) else last - first
    return first, count, (last - first - count) / rate


def _segment_text(start: float, stop: float) -> str:
    return f"segment {seconds_text(start)}-{seconds_text(stop)} s"
