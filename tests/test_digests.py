"""Clip keys: made of content and segment, remembered without being fooled."""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from featcache.home import home
from featcache.manifest import Clip, digests
from featcache.manifest.digests import clip_keys, file_digests

Make = Callable[..., Path]


def age(path: Path, seconds: float = 60) -> Path:
    """Make a file look as if it was written a while ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once: no test can set a change time back."""
    monkeypatch.setattr(digests, "SETTLED", -1e9)


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


@pytest.mark.usefixtures("settled")
def test_a_file_is_hashed_once_until_it_changes(make_audio: Make, hashed: list[Path]) -> None:
    path = age(make_audio("a.wav"))
    first = file_digests([path])
    assert file_digests([path]) == first
    assert hashed == [path]
    age(make_audio("a.wav", seed=3), seconds=30)
    assert file_digests([path]) != first
    assert hashed == [path, path]


@pytest.mark.parametrize("seconds", [0, 3600])
def test_a_file_written_just_now_is_not_remembered_whatever_time_it_bears(
    make_audio: Make, hashed: list[Path], seconds: float
) -> None:
    path = age(make_audio("a.wav"), seconds)
    file_digests([path])
    file_digests([path])
    assert hashed == [path, path]


@pytest.mark.usefixtures("settled")
def test_files_of_equal_size_and_time_that_change_places_are_told_apart(
    make_audio: Make, tmp_path: Path
) -> None:
    a, b = make_audio("a.wav", seed=1), make_audio("b.wav", seed=2)
    for path in (a, b):
        os.utime(path, (1e9, 1e9))
    before = file_digests([a, b])
    assert before[a] != before[b]
    a.rename(tmp_path / "c.wav")
    b.rename(a)
    (tmp_path / "c.wav").rename(b)
    assert file_digests([a, b]) == {a: before[b], b: before[a]}


@pytest.mark.usefixtures("settled")
def test_a_file_rewritten_in_place_with_its_old_time_is_hashed_again(make_audio: Make) -> None:
    a, other = make_audio("a.wav", seed=1), make_audio("b.wav", seed=2)
    os.utime(a, (1e9, 1e9))
    before = file_digests([a])
    with a.open("r+b") as file:  # the inode stays
        file.write(other.read_bytes())
    os.utime(a, (1e9, 1e9))
    assert file_digests([a]) != before


@pytest.mark.usefixtures("settled")
def test_rehash_forgets_what_is_remembered_wrongly(make_audio: Make, hashed: list[Path]) -> None:
    path = make_audio("a.wav")
    expected = file_digests([path])
    with closing(sqlite3.connect(home() / "digests.sqlite")) as memory, memory:
        assert memory.execute("UPDATE files SET digest = ?", (b"w" * 16,)).rowcount == 1
    assert file_digests([path]) == {path: b"w" * 16}
    assert file_digests([path], rehash=True) == expected
    assert file_digests([path]) == expected
    assert hashed == [path, path]


@pytest.mark.usefixtures("settled")
def test_a_memory_of_an_earlier_version_is_not_believed(make_audio: Make) -> None:
    path = make_audio("a.wav")
    stat = path.stat()
    with closing(sqlite3.connect(home() / "digests.sqlite")) as memory, memory:
        memory.execute(
            "CREATE TABLE digests (path TEXT PRIMARY KEY, size INT, mtime_ns INT, digest BLOB) WITHOUT ROWID"
        )
        row = (str(path), stat.st_size, stat.st_mtime_ns, b"w" * 16)
        memory.execute("INSERT INTO digests VALUES (?, ?, ?, ?)", row)
    assert file_digests([path]) != {path: b"w" * 16}


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
