"""Composed soundscapes: repeatable to the byte, fair between splits, true about their events."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featcache.datasets.mixing import BED_RMS, Recipe, active, bed, lay_events
from featcache.datasets.soundscapes import compose
from featcache.datasets.sources import BACKGROUND, SOUNDS, by_class, esc10_sources, packaged_sounds
from featcache.errors import InputError, MissingError
from featcache.manifest import read_manifest
from featcache.manifest.events import read_events

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
    with (tmp_path / "manifest.events.csv").open(newline="") as file:
        for event in csv.DictReader(file):
            used.setdefault(event["recording"], set()).add(split[event["id"]])
    assert len(used) > 20
    assert all(len(splits) == 1 for splits in used.values())


def test_labels_are_the_events_and_energy_is_where_they_are(tmp_path: Path) -> None:
    manifest = read_manifest(
        compose(packaged_sounds(), tmp_path, counts=COUNTS, recipe=Recipe(snr_db=(20.0, 20.0)))
    )
    events = read_events(tmp_path / "manifest.events.csv")
    louder = 0
    for clip in manifest:
        assert clip.labels == tuple(sorted(event.label for event in events[clip.id]))
        wave, rate = soundfile.read(clip.path)
        inside = np.zeros(len(wave), bool)
        for event in events[clip.id]:
            assert 0 <= event.start < event.end <= 5.0
            inside[round(event.start * rate) : round(event.end * rate)] = True
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


def decode(path: Path) -> np.ndarray:
    return soundfile.read(path)[0]


def test_without_a_background_there_is_sound_in_the_events_alone() -> None:
    classes = by_class(packaged_sounds(), "train")
    del classes[BACKGROUND]
    for seed in range(20):
        wave, events = lay_events(np.random.default_rng(seed), "clip", classes, Recipe(), decode)
        inside = np.zeros(len(wave), bool)
        for event in events:
            first, last = round(event.start * 16_000), round(event.end * 16_000)
            inside[first:last] = True
            assert np.abs(wave[[first, last - 1]]).min() > 0  # it is not shorter than it claims
        assert np.all(wave[~inside] == 0)


def test_an_event_is_as_loud_as_its_snr_says() -> None:
    classes = {"kick": by_class(packaged_sounds(), "train")["kick"]}
    recipe = Recipe(max_events=1, snr_db=(12.0, 12.0))
    wave, (event,) = lay_events(np.random.default_rng(0), "clip", classes, recipe, decode)
    sound = wave[round(event.start * 16_000) : round(event.end * 16_000)]
    assert 20 * np.log10(np.sqrt(np.mean(sound**2)) / BED_RMS) == pytest.approx(12.0)
    background = bed(
        np.random.default_rng(0), by_class(packaged_sounds(), "test")[BACKGROUND], recipe, decode
    )
    assert np.sqrt(np.mean(background**2)) == pytest.approx(BED_RMS)


def test_a_repeated_background_has_no_gap_and_no_click() -> None:
    steady = np.cos(np.arange(8_000) / 7.0)  # half a second, repeated ten times
    noiseless = Recipe(noise_db=(-200.0, -200.0))
    for seed in range(150):
        wave = bed(np.random.default_rng(seed), [Path("steady.wav")], noiseless, lambda path: steady)
        size = np.sqrt(np.convolve(wave**2, np.ones(160) / 160, "valid"))  # RMS over 10 ms
        assert size.min() > np.median(size) / 4
        assert size.max() < 2 * np.median(size)
        assert np.abs(np.diff(wave)).max() < 2 * np.abs(np.diff(steady)).max() * BED_RMS / 0.7


def test_silence_around_a_sound_is_no_part_of_the_event() -> None:
    sound = np.concatenate([np.full(100, 1e-4), np.ones(50), np.full(30, 1e-4)])
    assert len(active(sound)) == 50


def test_a_class_without_recordings_for_a_split_is_an_error() -> None:
    sounds = [sound for sound in packaged_sounds() if (sound.label, sound.split) != ("tom", "valid")]
    with pytest.raises(InputError, match="class 'tom' has no recording for valid"):
        by_class(sounds, "valid")


def test_esc10_is_split_by_its_folds(tmp_path: Path) -> None:
    for name in ("1-17367-A", "3-1-A", "5-2-B"):
        (tmp_path / "002 - Rain").mkdir(exist_ok=True)
        (tmp_path / f"002 - Rain/{name}.ogg").touch()
    found = [(sound.label, sound.split) for sound in esc10_sources(tmp_path)]
    assert found == [("rain", "train"), ("rain", "valid"), ("rain", "test")]
    with pytest.raises(MissingError, match=r"no ESC-10 at .*; wanted class folders"):
        esc10_sources(tmp_path / "elsewhere")
    (tmp_path / "002 - Rain/7-3-A.ogg").touch()
    with pytest.raises(InputError, match="does not begin with its fold"):
        esc10_sources(tmp_path)


def test_a_soundscape_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    compose(packaged_sounds(), tmp_path / "few", counts={"test": 2})
    compose(packaged_sounds(), tmp_path / "more", counts={"train": 3, "test": 4})
    few, more = (tmp_path / name / "audio/test-0001.wav" for name in ("few", "more"))
    assert few.read_bytes() == more.read_bytes()


def test_attribution_names_every_file_by_its_whole_path() -> None:
    text = (SOUNDS / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for sound in packaged_sounds():
        line = next(line for line in text.splitlines() if f"`{sound.path.relative_to(SOUNDS)}`" in line)
        assert "https://freesound.org/people/" in line
        assert line.endswith("| CC0 1.0 |")
