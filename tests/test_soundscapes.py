"""Composed soundscapes: repeatable to the byte, fair between splits, true about their events."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from featcache.datasets.mixing import Recipe
from featcache.datasets.soundscapes import compose, read_events
from featcache.datasets.sources import SOUNDS, packaged_sounds
from featcache.errors import InputError
from featcache.manifest import read_manifest

COUNTS = {"train": 6, "valid": 3, "test": 5}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        compose(packaged_sounds(), tmp_path / name, counts=COUNTS)
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_no_recording_is_in_two_splits(tmp_path: Path) -> None:
    manifest = read_manifest(
        compose(packaged_sounds(), tmp_path, counts={"train": 60, "valid": 30, "test": 30})
    )
    split = {clip.id: clip.split for clip in manifest}
    used: dict[str, set[str | None]] = {}
    for clip, events in read_events(tmp_path / "events.csv").items():
        for event in events:
            used.setdefault(event.recording, set()).add(split[clip])
    assert len(used) > 20
    assert all(len(splits) == 1 for splits in used.values())


def test_labels_are_the_events_and_energy_is_where_they_are(tmp_path: Path) -> None:
    manifest = read_manifest(
        compose(packaged_sounds(), tmp_path, counts=COUNTS, recipe=Recipe(snr_db=(20.0, 20.0)))
    )
    events = read_events(tmp_path / "events.csv")
    louder = 0
    for clip in manifest:
        assert clip.labels == tuple(sorted(event.label for event in events[clip.id]))
        wave, rate = soundfile.read(clip.path)
        inside = np.zeros(len(wave), bool)
        for event in events[clip.id]:
            assert 0 <= event.onset < event.offset <= 5.0
            inside[round(event.onset * rate) : round(event.offset * rate)] = True
        louder += np.mean(wave[inside] ** 2) > 3 * np.mean(wave[~inside] ** 2)
    assert louder >= len(manifest) - 1  # 20 dB is a mean over an event that may fade early


def test_the_packaged_sounds_are_few_bytes_and_all_attributed() -> None:
    files = [path for path in SOUNDS.rglob("*") if path.suffix in (".flac", ".ogg", ".wav")]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    listed = {sound.path for sound in packaged_sounds()}
    assert listed == set(files)
    text = (SOUNDS / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert [path.name for path in files if path.stem not in text] == []


def test_too_few_classes_are_refused(tmp_path: Path) -> None:
    sounds = [sound for sound in packaged_sounds() if sound.label in ("bass", "background")]
    with pytest.raises(InputError, match="events of different classes wanted"):
        compose(sounds, tmp_path, counts=COUNTS)
