"""Decoding: segments, channels, rates, and the reason why a clip has no waveform."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from featcache.audio.load import duration, load_clip
from featcache.errors import AudioError

Make = Callable[..., Path]


def test_a_segment_equals_that_part_of_the_whole_file(make_audio: Make) -> None:
    path = make_audio("a.wav", seconds=3)
    whole = load_clip(path, sample_rate=16_000).waveform
    part = load_clip(path, sample_rate=16_000, start=1.0, end=2.5).waveform
    torch.testing.assert_close(part, whole[16_000:40_000], rtol=0, atol=0)


def test_only_the_segment_is_read(make_audio: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = make_audio("a.wav", seconds=5), []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda self, frames, **rest: read.append(frames) or original(self, frames, **rest),
    )
    load_clip(path, sample_rate=16_000, start=4.0, end=4.5)
    load_clip(path, sample_rate=16_000, max_seconds=1.0)
    assert read == [8_000, 16_000]


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = np.full(1600, 0.5, np.float32), np.full(1600, -0.25, np.float32)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    waveform = load_clip(tmp_path / "s.wav", sample_rate=16_000).waveform
    torch.testing.assert_close(waveform, torch.full((1600,), 0.125))


def test_another_rate_is_resampled_as_torchaudio_does(make_audio: Make) -> None:
    path = make_audio("a.wav", rate=44_100)
    raw = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    expected = torchaudio.functional.resample(raw, 44_100, 16_000)
    torch.testing.assert_close(load_clip(path, sample_rate=16_000).waveform, expected, rtol=0, atol=0)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_the_formats_of_libsndfile_are_read(make_audio: Make, suffix: str) -> None:
    path = make_audio(f"a.{suffix}", seconds=2)
    waveform = load_clip(path, sample_rate=16_000).waveform
    assert abs(len(waveform) / 16_000 - 2) < 0.1
    assert waveform.dtype == torch.float32


def test_what_the_encoder_does_not_take_is_counted(make_audio: Make) -> None:
    path = make_audio("a.wav", seconds=3)
    cut = load_clip(path, sample_rate=16_000, max_seconds=2.0)
    assert (len(cut.waveform), cut.cut_seconds) == (32_000, 1.0)
    assert load_clip(path, sample_rate=16_000, max_seconds=3.0).cut_seconds == 0


def test_duration_comes_from_the_header(make_audio: Make) -> None:
    assert duration(make_audio("a.wav", seconds=2.5)) == 2.5


def test_a_segment_may_overrun_by_rounding(make_audio: Make) -> None:
    path = make_audio("a.wav", seconds=1)
    assert len(load_clip(path, sample_rate=16_000, end=1.005).waveform) == 16_000


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0.0, 2.0, r"segment 0-2 s goes past the end of the file \(1\.000 s\)"),
        (1.0, None, r"segment 1-1 s goes past the end"),
        (0.5, 0.50001, "holds no sample at 16000 Hz"),
    ],
)
def test_a_segment_outside_the_file_is_refused(
    make_audio: Make, start: float, end: float, message: str
) -> None:
    path = make_audio("a.wav", seconds=1)
    with pytest.raises(AudioError, match=message):
        load_clip(path, sample_rate=16_000, start=start, end=end)


def test_a_file_without_usable_audio_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no audio")
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan], np.float32), 16_000, subtype="FLOAT")
    reasons = {
        "gone.wav": "no such file",
        "empty.wav": r"is empty \(0 bytes\)",
        "text.wav": "cannot be read as audio",
        "none.wav": r"holds no audio \(0 samples\)",
        "nan.wav": "has NaN or infinite samples",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=reason):
            load_clip(tmp_path / name, sample_rate=16_000)
    with pytest.raises(AudioError, match="cannot be read as audio"):
        duration(tmp_path / "text.wav")


def test_a_truncated_file_is_refused_and_not_shortened(make_audio: Make) -> None:
    path = make_audio("a.flac", seconds=2)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(AudioError, match=r"damaged|cannot be read"):
        load_clip(path, sample_rate=16_000)
