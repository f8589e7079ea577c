"""Kill a writer at random instants, start it again each time, and compare with an unbroken run.

    python tests/benchmarks/bench_crash.py            # 30 kills of a cache writer
    python tests/benchmarks/bench_crash.py --extract  # 30 kills of 'featcache extract', fewer clips
    python tests/benchmarks/bench_crash.py --writers  # 30 kills of random ones of 4 extractions of one cache
    python tests/benchmarks/bench_crash.py --full     # also death before every change to a file

The kills are ``SIGKILL``, at random instants after the writer took the lock, so that they hit all
stages of the run; the last run is left alone. Prints one Markdown table; exits with 1 where a byte
differs.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "cache"))
import crash_writer

from featcache.cache.format.ledger import read_ledger

KILLS = 30
CLIPS = EXTRACTED = 1600  # 200 shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extract", action="store_true")
    parser.add_argument("--writers", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory(prefix="bench_crash_", dir=options.dir) as name:
        folder = Path(name)
        print(
            "| writer | kills | hit it running | numbers of shards found | shards at last | differing files |"
        )
        print("|---|---|---|---|---|---|")
        if options.extract:
            start: Callable[[Path], Writer] = Extract(folder)
            differing = kill_and_compare("featcache extract", start, folder)
        elif options.writers:
            differing = kill_some_of_many(Extract(folder), folder)
        else:
            differing = kill_and_compare("CacheWriter", Forked, folder)
        if options.full:
            differing += die_everywhere(folder)
    sys.exit(differing > 0)


class Writer:
    """A process that writes a cache."""

    pid: int

    def wait(self) -> bool:
        """Whether it came to its end."""
        raise NotImplementedError


class Forked(Writer):
    """A fork of this process that adds seeded clips; with ``die_at`` it ends itself there."""

    def __init__(self, path: Path, clips: int = CLIPS, die_at: int = 0) -> None:
        self.counter = memoryview(bytearray(8)).cast("q")
        self.pid = os.fork()
        if self.pid == 0:
            crash_writer.count_changes(self.counter, die_at)
            crash_writer.write(str(path), clips)
            os._exit(0)

    def wait(self) -> bool:
        return os.waitpid(self.pid, 0)[1] == 0


class Extract:
    """``featcache extract`` of made-up audio with the logmel encoder."""

    def __init__(self, folder: Path) -> None:
        import numpy as np
        import soundfile

        noise = np.random.default_rng(0).standard_normal((EXTRACTED, 16_000)).astype(np.float32) * 0.1
        for index, samples in enumerate(noise):
            soundfile.write(folder / f"{index}.wav", samples, 16_000)
        lines = ["path,labels", *(f"{index}.wav,noise" for index in range(EXTRACTED))]
        (folder / "clips.csv").write_text("\n".join(lines) + "\n")
        self._folder = folder

    def __call__(self, path: Path, share: str | None = None) -> Writer:
        writer = Writer()
        command = [sys.executable, "-m", "featcache.cli", "extract", str(self._folder / "clips.csv")]
        command += ["--encoder", "logmel", "--shard-clips", "8", "--out", str(path)]
        command += [] if share is None else ["--writer", share]
        environment = os.environ | {"FEATCACHE_HOME": str(self._folder / "home")}
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        writer.pid = process.pid
        writer.wait = lambda: process.wait() == 0  # type: ignore[method-assign]
        return writer


def kill_and_compare(name: str, start: Callable[[Path], Writer], folder: Path) -> int:
    """Kill the writer of one cache again and again; the number of files that differ in the end."""
    writer = start(folder / "unbroken.zarr")
    hold_on(folder / "unbroken.zarr", writer.pid)
    began = time.perf_counter()
    assert writer.wait()
    seconds = time.perf_counter() - began
    path, hit, found = folder / "killed.zarr", 0, {0}
    for _ in range(KILLS):
        writer = start(path)
        hold_on(path, writer.pid)
        time.sleep(random.uniform(0, 1.3 * seconds / KILLS))
        with suppress(ProcessLookupError):
            os.kill(writer.pid, signal.SIGKILL)
        hit += not writer.wait()
        found.add(num_shards(path))
    assert start(path).wait()
    differing = different_files(folder / "unbroken.zarr", path)
    print(f"| {name} | {KILLS} | {hit} | {len(found)} | {num_shards(path)} | {differing} |", flush=True)
    return differing


def kill_some_of_many(start: Extract, folder: Path, count: int = 4) -> int:
    """Kill random ones of several writers of one cache; the number of files that differ in the end."""
    assert start(folder / "unbroken.zarr").wait()
    path, found, kills, hit = folder / "killed.zarr", {0}, 0, 0
    running = {rank: start(path, f"{rank}/{count}") for rank in range(count)}
    while running:
        rank = random.choice(list(running))
        if kills < KILLS:
            wait_for_a_shard(path, max(found))
            time.sleep(random.uniform(0, 0.2))
            with suppress(ProcessLookupError):
                os.kill(running[rank].pid, signal.SIGKILL)
            kills += 1
            found.add(num_shards(path))
        if running[rank].wait():
            del running[rank]  # it had come to its end before
        else:
            hit += 1
            running[rank] = start(path, f"{rank}/{count}")
    differing = different_files(folder / "unbroken.zarr", path)
    name = f"{count} x featcache extract"
    print(f"| {name} | {kills} | {hit} | {len(found)} | {num_shards(path)} | {differing} |", flush=True)
    return differing


def wait_for_a_shard(path: Path, known: int, seconds: float = 20.0) -> None:
    """Wait until the cache has more finished shards than ``known``, or some seconds have gone."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not (path.exists() and num_shards(path) > known):
        time.sleep(0.02)


def hold_on(path: Path, pid: int) -> None:
    """Wait until the process writes to the cache, or has ended."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, ended) is None:
        if (path / "lock").exists() and f'"pid": {pid},' in (path / "lock").read_text():
            return
        time.sleep(0.001)


def num_shards(path: Path) -> int:
    """Finished shards."""
    return len(list(read_ledger(path)))


def die_everywhere(folder: Path) -> int:
    """End a writer before each of its changes to the file system in turn, and start it again."""
    clips, differing, deaths = 21, 0, 0
    assert Forked(folder / "small.zarr", clips).wait()
    while True:
        path = folder / f"small{deaths}.zarr"
        if Forked(path, clips, die_at=deaths + 1).wait():
            break
        deaths += 1
        assert Forked(path, clips).wait()
        differing += different_files(folder / "small.zarr", path)
    print(f"| CacheWriter, before every change | {deaths} | {deaths} | 4 | 3 | {differing} |", flush=True)
    return differing


def different_files(one: Path, two: Path) -> int:
    """Files under either directory that the other lacks or has with other bytes (runs.jsonl tells times)."""
    names = {file.relative_to(root) for root in (one, two) for file in root.rglob("*") if file.is_file()}
    names.discard(Path("runs.jsonl"))
    return sum(
        not (
            (one / name).exists()
            and (two / name).exists()
            and (one / name).read_bytes() == (two / name).read_bytes()
        )
        for name in names
    )


if __name__ == "__main__":
    main()
