"""Day-long recordings: windows in bounded memory, each file decoded once, the same bits however read."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from featcache.audio import opening, recording
from featcache.audio.decode_ahead import decode_ahead
from featcache.audio.load import Decoded, load_clip
from featcache.audio.recording import OpenRecordings
from featcache.manifest import Clip
from featcache.manifest.windows import window

RATE = 8_000
MINUTES = {"three.wav": 3, "three.flac": 3, "three.ogg": 3, "twenty.wav": 20, "eight.mp3": 8}


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few minutes in each format."""
    home = tmp_path_factory.mktemp("long")
    for name, minutes in MINUTES.items():
        _write(home / name, minutes)
    return {path.name: path for path in home.iterdir()}


def _write(path: Path, minutes: int) -> None:
    """A tone that rises each minute, in a little noise: MP3 of much noise at this rate is not sound."""
    noise = 0.01 * np.random.default_rng(0).standard_normal(60 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for minute in range(minutes):
            tone = 0.1 * np.sin(np.arange(60 * RATE) * (0.1 + 0.03 * minute))
            file.write((tone + np.roll(noise, minute)).astype(np.float32))


def windows(path: Path, minutes: int, hop: float = 5.0) -> list[Clip]:
    return window([Clip(id="a", path=path)], [60.0 * minutes], length=5.0, hop=hop)


def decode(clips: list[Clip]) -> Iterator[tuple[Clip, Decoded]]:
    for clip, found in decode_ahead(clips, sample_rate=RATE, max_seconds=5.0, workers=3, ahead=8):
        assert isinstance(found, Decoded)
        yield clip, found


def resident() -> int:
    """[bytes] of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def decoded_frames(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many frames libsndfile is asked for, and how often a file is opened (the second number)."""
    counts, lock = [0, 0], threading.Lock()
    real = soundfile.SoundFile.read

    def read(self: Any, frames: int = -1, *rest: Any, **more: Any) -> Any:
        samples = real(self, frames, *rest, **more)
        with lock:
            counts[0] += len(samples)
        return samples

    class Opened(soundfile.SoundFile):  # type: ignore[misc]
        def __init__(self, *words: Any, **more: Any) -> None:
            counts[1] += 1
            super().__init__(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(soundfile.SoundFile, "read", read)
        patch.setattr(opening.soundfile, "SoundFile", Opened)
        yield counts


@pytest.mark.slow
@pytest.mark.parametrize("name", ["three.wav", "three.flac", "three.ogg", "eight.mp3"])
def test_a_file_is_opened_once_and_decoded_once(
    name: str, long: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with decoded_frames(monkeypatch) as counts:
        total = sum(len(found.waveform) for _, found in decode(windows(long[name], MINUTES[name])))
    assert total == 60 * MINUTES[name] * RATE
    assert counts == [total, 1]


@pytest.mark.parametrize("name", ["three.wav", "three.flac", "three.ogg", "eight.mp3"])
def test_a_window_has_the_same_bits_alone_as_among_others_in_any_order(
    name: str, long: dict[str, Path]
) -> None:
    clips = windows(long[name], 3, hop=3.0)[:50]
    among = {clip.id: found.waveform for clip, found in decode(clips)}
    turned = random.Random(0).sample(clips, 12)
    shuffled = {clip.id: found.waveform for clip, found in decode(turned)}
    for clip in turned[:4]:
        alone = load_clip(clip.path, sample_rate=RATE, start=clip.start, end=clip.end).waveform
        assert torch.equal(alone, among[clip.id])
    for clip in turned:
        assert torch.equal(shuffled[clip.id], among[clip.id])
    whole = soundfile.read(long[name], dtype="float32")[0]
    first = turned[0]
    expected = whole[round(first.start * RATE) :][: 5 * RATE]
    np.testing.assert_allclose(among[first.id].numpy(), expected, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_recording(long: dict[str, Path]) -> None:
    for _ in decode(windows(long["three.wav"], 3)):
        pass  # threads and their heaps
    for name in ("twenty.wav", "eight.mp3"):
        before = resident()
        most = max(resident() - before for _ in decode(windows(long[name], MINUTES[name])))
        whole = MINUTES[name] * 60 * RATE * 4  # [bytes] of the waveform: 38 and 15 MB
        assert most < 0.6 * whole, name


def test_few_files_stay_open_for_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "OPEN_FILES", 2)
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", np.full(RATE, number / 10, dtype=np.float32), RATE)
    recordings = OpenRecordings()

    def ask(number: int) -> bool:
        path = tmp_path / f"{number % 6}.wav"
        with recordings.use(path, False) as own:
            part = own.read(number % 7 * 100, 50)
        return bool((part - number % 6 / 10).abs().max() < 1e-4) and len(part) == 50

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(600)))
    assert len(recordings._entries) <= 2
    recordings.close()
    assert not recordings._entries
