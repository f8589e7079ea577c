"""A writer may die at any instant: the same command then gives the bytes of an unbroken run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from featcache.cache import TokenCache
from featcache.cache.verify import verify_cache

CLIPS = 21  # two full shards of 8 and one of 5


class Writers:
    """The process of crash_writer.py."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("crash_writer.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin
        assert self._process.stdout
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    def start(self, path: Path, *, clips: int = CLIPS, die_at: int = 0) -> int:
        """Begin writing; the writer's pid."""
        self._in.write(f"{path} {clips} {die_at}\n")
        self._in.flush()
        return int(self._out.readline())

    def wait(self) -> tuple[int, int]:
        """The writer's wait status (0 where it came to its end) and its number of changes."""
        status, changes = self._out.readline().split()
        return int(status), int(changes)

    def run(self, path: Path, *, clips: int = CLIPS, die_at: int = 0) -> tuple[int, int]:
        """Write until the end."""
        self.start(path, clips=clips, die_at=die_at)
        return self.wait()

    def close(self) -> None:
        self._in.close()
        os.killpg(self._process.pid, signal.SIGKILL)  # with a writer that a failed test left behind
        self._process.wait()
        self._out.close()


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    process = Writers()
    yield process
    process.close()


@pytest.fixture
def unbroken(writers: Writers, tmp_path: Path, clips: Any) -> dict[str, bytes]:
    assert writers.run(tmp_path / "unbroken.zarr")[0] == 0
    files: dict[str, bytes] = clips.bytes_of(tmp_path / "unbroken.zarr")
    assert "tokens/12/c.2.0.0" in files
    return files


@pytest.mark.slow
def test_a_writer_that_dies_before_any_change_to_the_disk_leaves_a_good_cache(
    writers: Writers, unbroken: dict[str, bytes], tmp_path: Path, clips: Any
) -> None:
    _, changes = writers.run(tmp_path / "count.zarr")
    assert changes > 100
    step = changes // 20
    for die_at in range(1, changes, step):
        path = tmp_path / f"{die_at}.zarr"
        assert writers.run(path, die_at=die_at)[0] == 9 << 8, f"it lived beyond change {die_at}"
        if (path / "zarr.json").exists():
            cache = TokenCache.open(path)
            assert len(cache) in (0, 8, 16, CLIPS)
            assert len(cache) == CLIPS or not cache.complete
            assert [damage for damage in verify_cache(path) if damage.shard is not None] == []
        assert writers.run(path)[0] == 0
        assert clips.bytes_of(path) == unbroken, f"after dying before change {die_at}"


@pytest.mark.slow
def test_killed_at_random_instants_it_ends_with_the_same_bytes(
    writers: Writers, tmp_path: Path, clips: Any
) -> None:
    count = 200  # 25 shards: long enough to be hit in the middle
    start = time.perf_counter()
    assert writers.run(tmp_path / "unbroken.zarr", clips=count)[0] == 0
    seconds = time.perf_counter() - start
    path = tmp_path / "killed.zarr"
    killed = 0
    for seed in range(5):
        pid = writers.start(path, clips=count)
        time.sleep(random.Random(seed).uniform(0, seconds / 5))
        with suppress(ProcessLookupError):  # it came to its end before
            os.kill(pid, signal.SIGKILL)
        killed += writers.wait()[0] == signal.SIGKILL
    assert killed >= 2
    assert writers.run(path, clips=count)[0] == 0
    assert clips.bytes_of(path) == clips.bytes_of(tmp_path / "unbroken.zarr")


def test_the_lock_of_a_killed_writer_does_not_block(writers: Writers, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    pid = writers.start(path, clips=100_000)
    while not (path / "zarr.json").exists() or len(TokenCache.open(path)) == 0:
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert writers.wait()[0] == signal.SIGKILL
    assert str(pid) in (path / "lock").read_text()
    finished = len(TokenCache.open(path))
    assert writers.run(path, clips=finished)[0] == 0
    assert TokenCache.open(path).complete
