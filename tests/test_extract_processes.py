"""Several real processes at one cache, all at once: as torchrun starts them, into a bucket, and killed."""

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from featcache.cache import TokenCache
from featcache.cache.verify import verify_cache

Make = Callable[..., Path]
LOGMEL = ["--encoder", "logmel", "--clip-seconds", "0.5", "--shard-clips", "4", "--batch-size", "2"]
PROCESSES = 4


@pytest.fixture
def start(warm_process: Callable[..., Any]) -> Callable[..., Any]:
    def start(*words: object, **environment: object) -> Any:
        env = {**os.environ, **{name: str(value) for name, value in environment.items()}}
        return warm_process("featcache", "extract", *words, *LOGMEL, env=env)

    return start


def rank(number: int, count: int = PROCESSES) -> Mapping[str, object]:
    """What torchrun tells its processes."""
    return {"TORCHELASTIC_RUN_ID": "none", "RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count,
            "LOCAL_WORLD_SIZE": count}  # fmt: skip


def ends(processes: list[Any]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each."""
    said = [process.communicate(timeout=120) for process in processes]
    return [(process.returncode, *own) for process, own in zip(processes, said, strict=True)]


def by_file(cache: Path) -> dict[str, bytes]:
    found = [file for file in cache.rglob("*") if file.is_file() and file.name != "runs.jsonl"]
    return {str(file.relative_to(cache)): file.read_bytes() for file in found}


def test_no_process_of_torchruns_fails_for_a_bad_clip_before_all_is_done(
    make_manifest: Make, tmp_path: Path, start: Callable[..., Any]
) -> None:
    manifest = make_manifest(40, seconds=0.5)
    for bad in (0, 1, 17, 30):  # of the shards of several processes
        (tmp_path / f"audio/{bad}.wav").write_bytes(b"no audio")
    (alone,) = ends([start(manifest, "--out", tmp_path / "whole.zarr")])
    assert alone[0] == 2
    out = tmp_path / "c.zarr"
    several = ends([start(manifest, "--out", out, **rank(number)) for number in range(PROCESSES)])
    assert by_file(out) == by_file(tmp_path / "whole.zarr")
    assert len((out / "failed.jsonl").read_text().splitlines()) == 4
    last = [own for own in several if "other writers' shards are not finished yet" not in own[1]]
    assert last
    for code, output, errors in several:
        complete = (code, output, errors) in last
        assert (code, "all 4 failed clips are listed in" in errors) == ((2, True) if complete else (0, False))
        assert "Traceback" not in errors


def test_processes_of_one_machine_fill_a_bucket_from_one_folder_and_the_last_removes_it(
    make_manifest: Make, tmp_path: Path, start: Callable[..., Any]
) -> None:
    manifest, scratch = make_manifest(40, seconds=0.5), tmp_path / "scratch"
    assert ends([start(manifest, "--out", tmp_path / "whole.zarr")])[0][0] == 0
    words = [manifest, "--out", f"file://{tmp_path}/far.zarr", "--scratch", scratch]
    for code, output, errors in ends([start(*words, **rank(number)) for number in range(PROCESSES)]):
        assert (code, "Traceback" in errors) == (0, False), output + errors
    far = TokenCache.open(tmp_path / "far.zarr")
    assert (len(far), verify_cache(far.path), list(scratch.rglob("*.zarr"))) == (40, [], [])
    whole = TokenCache.open(tmp_path / "whole.zarr")
    assert far.ids == whole.ids
    assert all((one == other).all() for one, other in zip(far, whole, strict=True))
    (again,) = ends([start(*words)])
    assert "0 encoded, 40 already there" in again[1]


def test_what_a_killed_process_leaves_is_made_up_for(
    make_manifest: Make, tmp_path: Path, start: Callable[..., Any]
) -> None:
    manifest, out = make_manifest(400, seconds=0.5), tmp_path / "c.zarr"
    assert ends([start(manifest, "--out", tmp_path / "whole.zarr")])[0][0] == 0
    processes = [start(manifest, "--out", out, "--writer", f"{number}/4") for number in range(PROCESSES)]
    while not list(out.glob("ledger/*")) and processes[2].poll() is None:
        time.sleep(0.002)
    processes[2].kill()
    codes = [own[0] for own in ends(processes)]
    assert (codes[:2], codes[3]) == ([0, 0], 0)
    assert codes[2] == -9, "it was done before it could be killed"
    assert len(TokenCache.open(out)) < 400
    done = ends([start(manifest, "--out", out, "--writer", f"{number}/2") for number in range(2)])
    assert [own[0] for own in done] == [0, 0]
    assert sum(int(re.findall(r"(\d+) encoded", own[1])[0]) for own in done) <= 100
    assert by_file(out) == by_file(tmp_path / "whole.zarr")
