"""Writing: one writer at a time, whole shards, and errors that say what to do."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from featcache.cache import CacheWriter, TokenCache
from featcache.cache.write import lock
from featcache.cache.write.open_shard import OpenShard
from featcache.cache.write.shard_queue import ShardQueue
from featcache.errors import CacheError, InputError, MismatchError

MakeCache = Callable[..., TokenCache]


def stop_after(count: int) -> Iterator[int]:
    """0..count-1, then Ctrl-C."""
    yield from range(count)
    raise KeyboardInterrupt


def test_a_resumed_run_gives_the_bytes_of_an_unbroken_one(tmp_path: Path, clips: Any) -> None:
    clips.write(tmp_path / "unbroken.zarr", range(22))
    path = tmp_path / "resumed.zarr"
    for stop in (0, 3, 9, 17):
        with pytest.raises(KeyboardInterrupt), CacheWriter.create_or_open(path, clips.layout()) as writer:
            clips.add(writer, stop_after(stop))
        assert len(TokenCache.open(path)) == stop // 4 * 4
        assert not TokenCache.open(path).complete
    clips.write(path, range(22))
    assert clips.bytes_of(path) == clips.bytes_of(tmp_path / "unbroken.zarr")


def test_growing_starts_a_new_shard_and_leaves_the_old_ones_alone(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(6).path
    before = clips.bytes_of(path)
    clips.write(path, range(9))
    after = clips.bytes_of(path)
    changed = {name for name in after if before.get(name) != after[name]}
    assert {name for name in changed if "/c." in name} == {name for name in after if "/c.2" in name}, (
        "only shard 2 is new"
    )
    assert len(TokenCache.open(path)) == 9
    assert json.loads((path / "valid/zarr.json").read_text())["shape"] == [9 + 2]


def test_what_was_left_unfinished_is_cleared_away(make_cache: MakeCache, clips: Any) -> None:
    cache = make_cache(8)
    expected = clips.bytes_of(cache.path)
    for name in ("tokens/12/c.2.0.0", "mean/3/c.1.0", "ids/2.json", "zarr.json", "ledger/2.json", "plan/0"):
        (cache.path / f"{name}.partial").write_bytes(b"half")
        (cache.path / f"{name}.elsewhere-7-0123abcd.partial").write_bytes(b"half")
    (cache.path / "tokens/12/c.2.0.0").write_bytes(b"no ledger entry")
    clips.write(cache.path, range(8))
    (cache.path / "tokens/12/c.2.0.0").unlink()
    assert clips.bytes_of(cache.path) == expected
    clips.write(cache.path, range(12))
    assert len(TokenCache.open(cache.path).gather(range(12))) == 12


def test_a_shard_taken_out_is_filled_again_with_the_same_bytes(make_cache: MakeCache, clips: Any) -> None:
    from featcache.cache.verify import Damage, repair_cache

    path = make_cache(14).path
    expected = clips.bytes_of(path)
    assert repair_cache(path, [Damage(shard=1, file="", reason=""), Damage(shard=3, file="", reason="")]) == [
        1,
        3,
    ]
    assert TokenCache.open(path).ids == [f"clip{index}" for index in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert not TokenCache.open(path).complete
    clips.write(path, range(14))
    after = clips.bytes_of(path)
    assert after == expected


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"fingerprint": {"encoder": "fake", "weights": {"digest": "b2"}, "layers": [3, 12]}},
         "fingerprint.weights.digest: there 'a1', wanted 'b2'"),
        ({"layers": (12,)}, r"layers: there \[3, 12\], wanted \[12\]"),
        ({"dtype": "int8", "num_tokens": 8, "grid": (2, 4)},
         r"grid: there \[2, 3\], wanted \[2, 4\]; num_tokens: there 6, wanted 8; "
         "store.dtype: there 'float16', wanted 'int8'"),
        ({"codec": "zstd"}, "store.codec: there None, wanted 'zstd'"),
        ({"shard_clips": 5}, "store.shard_clips: there 4, wanted 5"),
        ({"has_cls": False}, "has_cls: there True, wanted False"),
    ],
)  # fmt: skip
def test_other_tokens_are_refused_by_the_fields_that_differ(
    make_cache: MakeCache, clips: Any, change: dict[str, Any], fields: str
) -> None:
    path = make_cache().path
    before = clips.bytes_of(path)
    with pytest.raises(
        MismatchError, match=rf"a.zarr holds other tokens than wanted: {fields}; use another path"
    ):
        CacheWriter.create_or_open(path, clips.layout(**change))
    assert clips.bytes_of(path) == before


def test_an_unspecified_shard_size_is_that_of_the_cache(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache().path
    with CacheWriter.create_or_open(path, clips.layout(shard_clips=None)) as writer:
        assert writer.layout.shard_rows == 4
        assert writer.room == 4


def test_a_shard_of_all_layers_is_about_192_mb(clips: Any) -> None:
    big = {"num_tokens": 512, "dim": 768, "grid": (8, 64), "shard_clips": None}
    assert clips.layout(**big, layers=(12,)).shard_rows == 256
    assert clips.layout(**big, layers=tuple(range(1, 13))).shard_rows == 21
    assert clips.layout(**big, layers=(12,), dtype="int4").shard_rows == 1024
    assert clips.layout(shard_clips=None).shard_rows == 4096
    assert clips.layout(**big | {"num_tokens": 10**6, "grid": (8, 125_000)}).shard_rows == 1


def test_a_second_writer_is_refused_with_the_owner(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache().path
    with CacheWriter.create_or_open(path, clips.layout()):
        message = rf"is being written by process {os.getpid()} on {os.uname().nodename}; wait for it to end"
        with pytest.raises(CacheError, match=message):
            CacheWriter.create_or_open(path, clips.layout())
        script = (
            "import sys; from featcache.cache.write.lock import WriterLock; from pathlib import Path\n"
            "WriterLock(Path(sys.argv[1]))"
        )
        other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
        assert f"process {os.getpid()} on" in other.stderr
    clips.write(path, range(11))
    assert len(TokenCache.open(path)) == 11


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_without_flock_the_text_of_the_lock_decides(
    make_cache: MakeCache, clips: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    path = make_cache().path
    monkeypatch.setattr(fcntl, "flock", no_flock)
    warnings.simplefilter("ignore")  # filelock says that it falls back
    with (
        CacheWriter.create_or_open(path, clips.layout()),
        pytest.raises(CacheError, match=rf"is being written by process {os.getpid()} on"),
    ):
        CacheWriter.create_or_open(path, clips.layout())
    (path / "lock").write_text(f"{2**22 + 1}\n{os.uname().nodename}\n")  # a process that is gone
    clips.write(path, range(10))
    (path / "lock").write_text("1\nelsewhere\n")
    with pytest.raises(CacheError, match=r"process 1 on elsewhere; .*if it is surely gone, remove .*lock"):
        CacheWriter.create_or_open(path, clips.layout())


def test_a_forked_child_does_not_hold_the_lock(tmp_path: Path) -> None:
    """A decoding worker may outlive its killed parent; the next run must not wait for it."""
    script = (
        "import os, sys, time; from pathlib import Path; from featcache.cache.write.lock import WriterLock\n"
        "lock = WriterLock(Path(sys.argv[1]))\n"
        "child = os.fork()\n"
        "if child == 0: os.close(1); time.sleep(60)\n"
        "print(child, flush=True); os._exit(0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )
    child = int(run.stdout)
    try:
        os.kill(child, 0)  # it is there
        lock.WriterLock(tmp_path).release()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_full_disk_is_one_clear_error_and_the_run_can_go_on(tmp_path: Path, clips: Any) -> None:
    """A limit on the size of a file stands for the disk."""
    path, big = tmp_path / "a.zarr", {"num_tokens": 2000, "grid": (2, 1000), "shard_clips": 6}
    clips.write(path, range(6), **big)
    size = (path / "tokens/12/c.0.0.0").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = (
        r"cannot write the token cache .*a.zarr: file too large .*; the finished shards stay good: make room"
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        with (
            pytest.raises(CacheError, match=message),
            CacheWriter.create_or_open(path, clips.layout(**big)) as writer,
        ):
            clips.add(writer, range(30))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(path.rglob("*.partial"))
    assert len(TokenCache.open(path)) == 6
    clips.write(path, range(30), **big)
    clips.write(tmp_path / "unbroken.zarr", range(30), **big)
    assert clips.bytes_of(path) == clips.bytes_of(tmp_path / "unbroken.zarr")


def removing(path: Path) -> Iterator[int]:
    """0..99; the directory goes first."""
    shutil.rmtree(path)
    yield from range(100)


def test_an_error_of_the_writing_thread_stops_the_caller(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    with (
        pytest.raises(CacheError, match=r"cannot write the token cache .*No such file or directory"),
        CacheWriter.create_or_open(path, clips.layout()) as writer,
    ):
        clips.add(writer, removing(path / "mean"))


def test_wrong_shapes_are_refused_by_the_clip(tmp_path: Path, clips: Any) -> None:
    tokens = {3: torch.zeros(6, 8), 12: torch.zeros(6, 8)}
    cls = {3: torch.zeros(8), 12: torch.zeros(8)}
    key = clips.key(0)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((b"short", tokens, cls, 6), "a key has 16 bytes, not 5"),
        ((key, {3: tokens[3]}, cls, 6), r"layer 12 needs tokens \(n <= 6, 8\), found none"),
        (
            (key, {3: tokens[3], 12: torch.zeros(7, 8)}, cls, 6),
            r"layer 12 needs tokens \(n <= 6, 8\), found \(7, 8\)",
        ),
        ((key, tokens, None, 6), "the cache was created with has_cls=True"),
        ((key, tokens, cls, 7), "7 valid tokens of 6"),
    ]
    with CacheWriter.create_or_open(tmp_path / "a.zarr", clips.layout()) as writer:
        for (clip_key, maps, vectors, valid), message in wrong:
            with pytest.raises(InputError, match=f"clip 'one': {message}"):
                writer.add("one", clip_key, maps, vectors, valid)
        writer.add("two", key, tokens, cls, 6)
    assert TokenCache.open(tmp_path / "a.zarr").ids == ["two"]


def test_a_path_that_holds_something_else_is_left_alone(tmp_path: Path, clips: Any) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not a token cache and not empty \(it holds 'notes.txt'\)"):
        CacheWriter.create_or_open(tmp_path, clips.layout())
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match=r"notes.txt is a file, not a token cache; choose another path"):
        CacheWriter.create_or_open(tmp_path / "notes.txt", clips.layout())


@pytest.mark.parametrize(
    ("lost", "message"),
    [("ledger", "has shards but no ledger"), ("zarr.json", "has a ledger but no zarr.json")],
)
def test_a_cache_that_lost_a_file_is_not_overwritten(
    make_cache: MakeCache, clips: Any, lost: str, message: str
) -> None:
    path = make_cache().path
    (path / lost).rename(path.parent / "lost")
    with pytest.raises(CacheError, match=f"{message}; copy the cache again, or remove the directory"):
        CacheWriter.create_or_open(path, clips.layout())


def test_clips_are_copied_from_another_cache_bit_for_bit(
    make_cache: MakeCache, clips: Any, tmp_path: Path
) -> None:
    other = make_cache(10, dtype="int8", name="other.zarr", shard_clips=3)
    with CacheWriter.create_or_open(tmp_path / "copy.zarr", clips.layout(dtype="int8")) as writer:
        writer.check_same(other)
        for row in range(10):
            writer.add_stored(other.ids[row], other.keys[row].tobytes(), other, row)
    clips.write(tmp_path / "unbroken.zarr", range(10), dtype="int8")
    ours, theirs = clips.bytes_of(tmp_path / "copy.zarr"), clips.bytes_of(tmp_path / "unbroken.zarr")
    # The statistics are those of the tokens that were given: rounded ones here.
    assert {name.split("/")[0] for name in ours if ours[name] != theirs.get(name)} == {"ledger", "statistics"}
    with (
        CacheWriter.create_or_open(tmp_path / "float.zarr", clips.layout()) as writer,
        pytest.raises(
            MismatchError, match=r"other.zarr holds other tokens than wanted: store.dtype: there 'int8'"
        ),
    ):
        writer.check_same(other)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def full_disk(*arguments: Any, **settings: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_shard_that_is_whole_stays_when_the_next_one_fails(
    tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second shard fails before the first is durable."""
    path, before, failed = tmp_path / "a.zarr", descriptors(), threading.Event()
    seal, append = ShardQueue._seal, OpenShard.append

    def later(queue: ShardQueue, *arguments: Any) -> None:
        assert failed.wait(10)
        seal(queue, *arguments)

    def fails(shard: OpenShard, clip: Any) -> None:
        if shard.number == 1:
            failed.set()
            full_disk()
        append(shard, clip)

    monkeypatch.setattr(ShardQueue, "_seal", later)
    monkeypatch.setattr(OpenShard, "append", fails)
    with pytest.raises(CacheError, match="the disk is full"):
        clips.write(path, range(20))
    assert (len(TokenCache.open(path)), list(path.rglob("*.partial"))) == (4, [])
    monkeypatch.undo()
    assert descriptors() == before
    clips.write(path, range(20))
    clips.write(tmp_path / "unbroken.zarr", range(20))
    assert clips.bytes_of(path) == clips.bytes_of(tmp_path / "unbroken.zarr")


def test_a_shard_that_cannot_open_all_its_files_leaves_none(
    tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, before, real = tmp_path / "a.zarr", descriptors(), os.open

    def second_fails(name: Any, *arguments: Any, **settings: Any) -> int:
        return full_disk() or 0 if "12/c.0.0.0" in str(name) else real(name, *arguments, **settings)

    monkeypatch.setattr(os, "open", second_fails)
    with pytest.raises(CacheError, match="the disk is full"):
        clips.write(path, range(4))
    assert (descriptors(), list(path.rglob("*.partial"))) == (before, [])


def failing(patch: pytest.MonkeyPatch) -> Iterator[int]:
    """0..3; the disk is full, and nothing can be removed from it."""
    patch.setattr(os, "fsync", full_disk)
    patch.setattr(Path, "unlink", full_disk)
    yield from range(4)


def test_what_cannot_be_removed_does_not_hide_the_error_or_hold_the_lock(
    tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    with (
        monkeypatch.context() as patch,
        pytest.raises(CacheError, match="the disk is full"),
        CacheWriter.create_or_open(path, clips.layout()) as writer,
    ):
        clips.add(writer, failing(patch))
    assert list(path.rglob("*.partial"))
    clips.write(path, range(4))
    assert (len(TokenCache.open(path)), list(path.rglob("*.partial"))) == (4, [])


def test_a_closed_writer_says_so(tmp_path: Path, clips: Any) -> None:
    writer = CacheWriter.create_or_open(tmp_path / "a.zarr", clips.layout())
    writer.close()
    for _ in range(10):
        with pytest.raises(InputError, match="this cache writer is closed; open the cache again"):
            clips.add(writer, [1])


def test_a_forked_child_cannot_disturb_its_parents_writer(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.zarr"
    with CacheWriter.create_or_open(path, clips.layout()) as writer:
        clips.add(writer, [0])
        if (child := os.fork()) == 0:
            try:
                with pytest.raises(InputError, match="not to a forked child"):
                    clips.add(writer, [1])
                writer.abort()
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        clips.add(writer, [1])
    assert len(TokenCache.open(path)) == 2


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_tokens_may_carry_gradients(tmp_path: Path, clips: Any, dtype: str) -> None:
    layout = clips.layout(dtype=dtype, layers=(12,), has_cls=False)
    for name, learned in (("a.zarr", True), ("b.zarr", False)):
        with CacheWriter.create_or_open(tmp_path / name, layout) as writer:
            writer.add("one", clips.key(0), {12: clips.tokens(0).requires_grad_(learned)}, None, 4)
    assert clips.bytes_of(tmp_path / "a.zarr") == clips.bytes_of(tmp_path / "b.zarr")
