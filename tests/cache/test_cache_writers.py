"""Many writers of one cache: each takes whole shards, none waits, any may die, and the bytes are the same."""

import errno
import fcntl
import json
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from featcache.cache import CacheWriter, TokenCache
from featcache.cache.format.durable import writer_name
from featcache.cache.format.ledger import fold, pieces, read_ledger
from featcache.cache.verify import repair_cache, verify_cache
from featcache.cache.write import recovery
from featcache.cache.write.lock import writer_of
from featcache.errors import CacheError

CLIPS = 30  # seven full shards of 4 and one of 2
BROKEN = (5, 28)  # cannot be decoded: their places stay empty


def write_share(
    path: Path,
    clips: Any,
    rank: int,
    count: int,
    *,
    shards: Iterable[int] | None = None,
    before_end: Callable[[int], None] = lambda shard: None,
    **changes: Any,
) -> list[int]:
    """What extract does as writer ``rank`` of ``count``; the shards that another one finished meanwhile."""
    keys = {clips.key(index): index for index in range(CLIPS)}
    with CacheWriter.create_or_open(path, clips.layout(**changes), alone=count == 1) as writer:
        if writer.first.wanted:
            writer.first.choose(
                {layer: [clips.tokens(i, layer)[: clips.valid(i)] for i in range(4)] for layer in (3, 12)}
            )
        for shard, own in writer.plan(keys).items():
            if shard % count != rank if shards is None else shard not in shards:
                continue
            writer.begin_shard(shard)
            good = [keys[key] for key in own if keys[key] not in BROKEN]
            bad = [key for key in own if keys[key] in BROKEN]
            clips.add(writer, good)
            before_end(shard)
            writer.end_shard({key.hex(): {"id": f"clip{keys[key]}", "reason": "not audio"} for key in bad})
        writer.refresh()
        complete = not writer.plan(())
        writer.close(complete=complete)
        return writer.lost


@pytest.fixture(params=["float16", "int8"])
def alone(tmp_path: Path, clips: Any, request: pytest.FixtureRequest) -> tuple[str, dict[str, bytes]]:
    """The files that one writer makes."""
    path = tmp_path / "alone.zarr"
    assert write_share(path, clips, 0, 1, dtype=request.param) == []
    assert TokenCache.open(path).complete
    return request.param, clips.bytes_of(path)


@pytest.mark.parametrize("count", [2, 5])
def test_any_number_of_writers_makes_the_same_files(
    tmp_path: Path, clips: Any, alone: tuple[str, dict[str, bytes]], count: int
) -> None:
    dtype, expected = alone
    for rank in reversed(range(count)):
        write_share(tmp_path / "many.zarr", clips, rank, count, dtype=dtype)
    assert clips.bytes_of(tmp_path / "many.zarr") == expected
    cache = TokenCache.open(tmp_path / "many.zarr")
    assert cache.ids == [f"clip{index}" for index in range(CLIPS) if index not in BROKEN]
    assert verify_cache(cache.path) == []


def test_their_number_may_change_between_runs(
    tmp_path: Path, clips: Any, alone: tuple[str, dict[str, bytes]]
) -> None:
    dtype, expected = alone
    path = tmp_path / "many.zarr"
    write_share(path, clips, 1, 3, dtype=dtype)
    write_share(path, clips, 3, 5, dtype=dtype)
    assert not TokenCache.open(path).complete
    write_share(path, clips, 0, 1, dtype=dtype)
    assert clips.bytes_of(path) == expected


def test_two_that_are_given_the_same_shard_lose_nothing_and_say_so(tmp_path: Path, clips: Any) -> None:
    """The second ends all its shards while the first is still at the end of shard 1."""
    path = tmp_path / "a.zarr"

    def other(shard: int) -> None:
        if shard == 1:
            assert write_share(path, clips, 0, 2, shards=[1, 2, 3]) == []

    assert write_share(path, clips, 0, 2, shards=[0, 1, 2], before_end=other) == [1, 2]
    assert sorted(entry.shard for entry in read_ledger(path)) == [0, 1, 2, 3]
    assert [damage for damage in verify_cache(path) if damage.shard is not None] == []
    assert not list(path.rglob("*.partial"))


def test_two_that_compute_differently_never_mix_their_files(
    tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, own = tmp_path / "a.zarr", clips.tokens

    def other(shard: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(clips, "tokens", lambda index, layer=12: own(index, layer) * 1.5)
            write_share(path, clips, 0, 2, shards=[0])

    assert write_share(path, clips, 0, 2, shards=[0], before_end=other) == [0]
    assert [damage for damage in verify_cache(path) if damage.shard is not None] == []
    stored = TokenCache.open(path).tokens(range(4))
    expected = torch.stack([own(index) * 1.5 for index in range(4)]).half()
    assert torch.equal(stored, expected)


def test_whoever_comes_next_finishes_the_shard_of_a_writer_that_won_and_died(
    tmp_path: Path, clips: Any, alone: tuple[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It died right after its shard was published, or after one of its files had got its name."""
    dtype, expected = alone
    for renamed in (0, 1, 3):
        path, left = tmp_path / f"{renamed}.zarr", [renamed]
        rename = Path.rename

        def dying(file: Path, target: Path, left: list[int] = left, rename: Any = rename) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return Path(rename(file, target))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", dying)
            with suppress(KeyboardInterrupt, CacheError):
                write_share(path, clips, 0, 2, dtype=dtype)
        assert (path / "ledger/0.commit").exists()
        assert len(TokenCache.open(path)) == 0
        for rank in range(2):
            write_share(path, clips, rank, 2, dtype=dtype)
        assert clips.bytes_of(path) == expected


def test_reading_beside_writers_sees_whole_shards(tmp_path: Path, clips: Any) -> None:
    path, seen, stop = tmp_path / "a.zarr", set(), threading.Event()
    write_share(path, clips, 0, 2, shards=[])

    def read() -> None:
        while not stop.is_set():
            cache = TokenCache.open(path)
            rows = {name: row for row, name in enumerate(cache.ids)}
            for name, row in rows.items():
                index = int(name.removeprefix("clip"))
                assert torch.equal(cache.tokens([row])[0], clips.tokens(index).half())
            seen.add(len(cache))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for rank in range(4):
            write_share(path, clips, rank, 4)
    finally:
        stop.set()
        reader.join()
    assert len(TokenCache.open(path)) == CLIPS - len(BROKEN)
    assert len(seen) > 1


def test_a_new_clip_is_planned_after_what_is_there(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    write_share(path, clips, 0, 1)
    with CacheWriter.create_or_open(path, clips.layout()) as writer:
        planned = writer.plan([clips.key(index) for index in (40, 3, 41)])
    assert planned == {8: [clips.key(40), clips.key(41)]}


@pytest.mark.parametrize("count", [1, 2])
def test_one_alone_and_several_keep_each_other_out(tmp_path: Path, clips: Any, count: int) -> None:
    path = tmp_path / "a.zarr"
    with CacheWriter.create_or_open(path, clips.layout(), alone=count == 1):
        assert str(os.getpid()) in (writer_of(path) or "")
        with pytest.raises(CacheError, match=f"is being written by process {os.getpid()}"):
            CacheWriter.create_or_open(path, clips.layout(), alone=count == 2)
        with pytest.raises(CacheError, match="is being written by process"):
            repair_cache(path, [])
    assert writer_of(path) is None
    assert (path / "lock").read_bytes() == b""


def test_several_need_no_flock(tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path = tmp_path / "a.zarr"
    monkeypatch.setattr(fcntl, "flock", no_flock)
    for rank in range(3):
        write_share(path, clips, rank, 3)
    assert TokenCache.open(path).complete
    assert verify_cache(path) == []


def test_writers_of_other_hosts_keep_their_temporary_files(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    write_share(path, clips, 0, 4)
    gone = writer_name().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    files = {
        name: path / f"tokens/12/c.{shard}.0.0.{name}.partial"
        for name, shard in (
            ("elsewhere-7-0123abcd", 1),
            (writer_name(), 1),
            (gone, 1),
            ("else-7-0123abcd", 0),
        )
    }
    for file in files.values():
        file.write_bytes(b"half")
    CacheWriter.create_or_open(path, clips.layout(), alone=False).close(complete=False)
    assert [file.exists() for file in files.values()] == [True, True, False, False]


def test_folding_keeps_every_shard_whoever_folds(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    for rank in range(3):
        write_share(path, clips, rank, 4)
    entries = list(read_ledger(path))
    assert len(pieces(path)) == len(entries) == 6
    (path / "ledger/0.json").rename(path / "kept")
    fold(path)
    (path / "kept").rename(path / "ledger/0.json")
    assert len(pieces(path)) == 2
    assert list(read_ledger(path)) == entries
    fold(path)
    fold(path)
    assert len(pieces(path)) == 1
    assert list(read_ledger(path)) == entries


def test_a_planned_shard_whose_clips_all_failed_is_finished_and_empty(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    with CacheWriter.create_or_open(path, clips.layout()) as writer:
        shards = writer.plan([clips.key(index) for index in range(8)])
        writer.begin_shard(0)
        writer.end_shard({key.hex(): {"id": "x", "reason": "not audio"} for key in shards[0]})
        writer.begin_shard(1)
        clips.add(writer, range(4, 8))
        writer.end_shard()
        writer.refresh()
        assert writer.plan(()) == {}
    cache = TokenCache.open(path)
    assert cache.ids == [f"clip{index}" for index in range(4, 8)]
    assert torch.equal(cache.tokens([0])[0], clips.tokens(4).half())
    assert cache.mean().shape == (4, 8)
    assert cache.channel_statistics() is not None
    assert verify_cache(path) == []


def test_a_damaged_plan_is_found(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    write_share(path, clips, 0, 1)
    raw = bytearray((path / "plan/0").read_bytes())
    raw[20] ^= 1
    (path / "plan/0").write_bytes(raw)
    assert [(damage.file, damage.lasting) for damage in verify_cache(path)] == [("plan/0", True)]
    with pytest.raises(CacheError, match=r"plan/0 is damaged: its checksum is wrong; copy the cache again"):
        write_share(path, clips, 0, 1)


def test_what_a_foreign_commit_names_is_not_renamed(tmp_path: Path, clips: Any) -> None:
    path, outside = tmp_path / "a.zarr", tmp_path / "x.w.partial"
    write_share(path, clips, 0, 4)
    outside.write_bytes(b"mine")
    entry = {"shard": 1, "clips": 4, "files": {"../x": {"bytes": 4, "crc32c": "01234567"}}}
    (path / "ledger/1.commit").write_text(json.dumps({"writer": "w", "entry": entry}) + "\n")
    with pytest.raises(CacheError, match=r"ledger/1.commit cannot be read; remove it"):
        write_share(path, clips, 1, 4)
    assert outside.read_bytes() == b"mine"


def test_killed_among_several_and_started_again_they_make_the_same_files(
    tmp_path: Path, clips: Any, alone: tuple[str, dict[str, bytes]]
) -> None:
    dtype, expected = alone
    path, chance = tmp_path / "killed.zarr", random.Random(0)
    running: dict[int, int] = {}

    def start(rank: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                write_share(path, clips, rank, 3, dtype=dtype, before_end=lambda shard: time.sleep(0.01))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        running[pid] = rank

    for rank in range(3):
        start(rank)
    kills = 0
    while running:
        if kills < 8:
            time.sleep(chance.uniform(0, 0.05))
            os.kill(chance.choice(list(running)), signal.SIGKILL)
            kills += 1
        pid, status = os.wait()
        if pid not in running:  # a child of another test
            continue
        rank = running.pop(pid)
        if status:
            assert status == signal.SIGKILL, "a writer failed"
            start(rank)
    assert clips.bytes_of(path) == expected


def test_a_cache_that_another_writer_makes_while_this_one_looks_is_not_refused(
    tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "a.zarr", recovery.pieces
    path.mkdir()

    def pieces(cache: Path) -> Any:
        monkeypatch.setattr(recovery, "pieces", real)
        write_share(path, clips, 0, 3)  # the other
        return real(cache)

    monkeypatch.setattr(recovery, "pieces", pieces)
    for rank in (1, 2):
        write_share(path, clips, rank, 3)
    assert len(TokenCache.open(path)) == CLIPS - len(BROKEN)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Caches of format 1, of ten clips each."""
    with ZipFile(Path(__file__).parents[1] / "golden/cache_format1.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_cache_of_format_1_is_read_and_grown(old: Path, clips: Any, dtype: str) -> None:
    cache = TokenCache.open(old / f"{dtype}.zarr")
    assert cache.attributes["format"] == 1
    assert cache.channel_statistics() is None
    assert verify_cache(cache.path) == []
    before = cache.tokens(range(10))
    limit = {"float16": 2**-10, "int8": 0.5 / 126}[dtype]
    expected = torch.stack([clips.tokens(index) for index in range(10)])
    assert ((before.float() - expected).abs() <= limit * expected.abs().amax(dim=-1, keepdim=True)).all()
    clips.write(cache.path, range(14), dtype=dtype)
    grown = TokenCache.open(cache.path)
    assert (grown.attributes["format"], len(grown), (cache.path / "ledger.jsonl").exists()) == (2, 14, False)
    assert torch.equal(grown.tokens(range(10)), before)
    assert verify_cache(cache.path) == []
