"""Clip keys: made of content and segment, remembered without being fooled."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.manifest import Clip, digests
from featcache.manifest.digests import clip_keys, file_digests, home

Make = Callable[..., Path]


def age(path: Path, seconds: float = 60) -> Path:
    """Make a file look as if it was written a while ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to be hashed, as they are."""
    read: list[Path] = []
    original = digests._hash
    monkeypatch.setattr(digests, "_hash", lambda path: read.append(path) or original(path))
    return read


def test_a_moved_file_keeps_its_key_and_changed_audio_does_not(make_audio: Make, tmp_path: Path) -> None:
    path = make_audio("a.wav")
    (key,) = clip_keys([Clip(id="1", path=path)])
    path.rename(tmp_path / "b.wav")
    assert clip_keys([Clip(id="2", path=tmp_path / "b.wav")]) == [key]
    assert clip_keys([Clip(id="1", path=make_audio("a.wav", seed=1))]) != [key]


def test_a_segment_is_part_of_the_key(make_audio: Make) -> None:
    path = make_audio("a.wav")
    segments = [(0.0, None), (0.0, 0.5), (0.1, 0.5), (0.1, None)]
    keys = clip_keys([Clip(id=str(i), path=path, start=s, end=e) for i, (s, e) in enumerate(segments)])
    assert len(set(keys)) == 4
    assert all(key is not None and len(key) == 16 for key in keys)


def test_a_file_that_is_not_there_has_no_key(tmp_path: Path) -> None:
    assert clip_keys([Clip(id="1", path=tmp_path / "none.wav"), Clip(id="2", path=tmp_path)]) == [None, None]


def test_a_file_is_hashed_once_until_it_changes(make_audio: Make, hashed: list[Path]) -> None:
    path = age(make_audio("a.wav"))
    first = file_digests([path])
    assert file_digests([path]) == first
    assert hashed == [path]
    age(make_audio("a.wav", seed=3), seconds=30)
    assert file_digests([path]) != first
    assert hashed == [path, path]


def test_a_file_written_just_now_is_not_remembered(make_audio: Make, hashed: list[Path]) -> None:
    path = make_audio("a.wav")
    file_digests([path])
    file_digests([path])
    assert hashed == [path, path]


def test_a_damaged_memory_or_an_unwritable_home_costs_only_time(
    make_audio: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = age(make_audio("a.wav"))
    expected = file_digests([path])
    (home() / "digests.sqlite").write_bytes(b"no database")
    assert file_digests([path]) == expected
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path / "file" / "below"))
    assert file_digests([path]) == expected
