"""A cache that was damaged, or made by someone who means harm, costs one clear line and nothing else."""

import errno
import json
import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from featcache.cache import CacheWriter, TokenCache, verify
from featcache.cache.format.durable import file_crc32c
from featcache.cache.remove import remove_cache
from featcache.cache.survey import describe
from featcache.cache.verify import Damage, check_cache, repair_cache, verify_cache
from featcache.cache.write.lock import WriterLock, writer_of
from featcache.cli.main import featcache
from featcache.errors import CacheError, FeatcacheError, InputError
from featcache.records import add_run, failed_clips, last_manifest, record_failed

MakeCache = Callable[..., TokenCache]
READS: dict[str, Callable[[TokenCache], Any]] = {
    "scale/12/c.1.0": lambda cache: cache.scales(range(10)),
    "mean/12/c.1.0": lambda cache: cache.mean(),
    "cls/12/c.1.0": lambda cache: cache.cls(),
    "valid/c.1": lambda cache: cache.mask([0]),
    "clip_key/c.1.0": lambda cache: cache.keys,
    "ids/1.json": lambda cache: cache.ids,
}


def flipped(raw: bytes) -> bytes:
    data = bytearray(raw)
    data[random.Random(0).randrange(len(data))] ^= 16
    return bytes(data)


@pytest.mark.parametrize("reader", ["map", "pread", "preload"])
@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[: len(raw) // 2], r"is damaged: it has \d+ bytes instead of"),
        (lambda raw: b"", "is damaged: it has 0 bytes instead of"),
        (lambda raw: raw + b"x", r"is damaged: it has \d+ bytes instead of"),
        (flipped, "is damaged: its checksum is not the ledger's"),
    ],
    ids=["cut", "emptied", "longer", "flipped"],
)
def test_small_arrays_are_read_as_they_were_written_or_not_at_all(
    make_cache: MakeCache, reader: str, name: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = make_cache(10, dtype="int8").path
    cache = TokenCache.open(path, reader)
    READS[name](cache)
    (path / name).write_bytes(damage((path / name).read_bytes()))
    with pytest.raises(CacheError, match=f"{name} {message}.*featcache cache verify --repair"):
        READS[name](TokenCache.open(path, reader))


@pytest.mark.parametrize("kind", ["mean", "cls"])
def test_vectors_of_a_few_rows_are_checked_like_whole_columns(make_cache: MakeCache, kind: str) -> None:
    path = make_cache(10).path
    file = path / f"{kind}/12/c.1.0"
    file.write_bytes(flipped(file.read_bytes()))
    cache = TokenCache.open(path)
    getattr(cache, kind)([0])  # of another shard
    with pytest.raises(CacheError, match="its checksum is not the ledger's"):
        getattr(cache, kind)([5])


def test_a_cache_verifies_its_tokens_when_asked(make_cache: MakeCache) -> None:
    cache = make_cache(10)
    assert cache.verify() == []
    file = cache.path / "tokens/12/c.1.0.0"
    file.write_bytes(flipped(file.read_bytes()))
    assert [(damage.shard, damage.file) for damage in cache.verify()] == [(1, "tokens/12/c.1.0.0")]


def attributes_changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((path / "zarr.json").read_text())
    change(document["attributes"]["featcache"])
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.update(layers=["../../x"]), "each of layers is a whole number from 0"),
        (lambda own: own.update(layers=[True]), "each of layers is a whole number from 0"),
        (lambda own: own.update(layers=12), "not iterable"),
        (lambda own: own.update(layers=[]), "one or more different layers"),
        (lambda own: own.update(grid=[2, 4]), "does not make 6 tokens"),
        (lambda own: own.update(grid=[6]), "not enough values"),
        (lambda own: own.update(num_tokens=6.0), "num_tokens is a whole number"),
        (lambda own: own.update(dim=0), "dim is a whole number from 1"),
        (lambda own: own.update(dim=10**12), "dim is a whole number from 1"),
        (lambda own: own.update(has_cls="no"), "has_cls is true or false, not 'no'"),
        (lambda own: own.update(fingerprint=[]), "fingerprint is a record"),
        (lambda own: own.update(store=None), "NoneType"),
        (lambda own: own["store"].update(dtype="complex"), "no storage dtype named 'complex'"),
        (lambda own: own["store"].update(dtype=[]), "unhashable"),
        (lambda own: own["store"].update(codec="rar"), "no codec named 'rar'"),
        (lambda own: own["store"].update(shard_clips=-1), "shard_clips is a whole number from 1"),
        (lambda own: own["store"].update(shard_clips=None), "shard_clips is a whole number from 1"),
        (lambda own: own.pop("grid"), "there is no 'grid'"),
    ],
)
def test_each_field_of_a_layout_is_what_it_can_be(
    make_cache: MakeCache, clips: Any, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    path = make_cache(4).path
    attributes_changed(path, change)
    before = clips.bytes_of(path.parent)
    for use in (
        lambda: TokenCache.open(path),
        lambda: verify_cache(path),
        lambda: repair_cache(path, []),
        lambda: clips.write(path, range(8)),
    ):
        with pytest.raises(CacheError, match=rf"zarr.json are damaged: .*{message}"):
            use()
    assert clips.bytes_of(path.parent) == before


@pytest.mark.parametrize(
    "name",
    [
        "lock", "zarr.json.partial", "ledger.jsonl.partial", "ledger/0.json.partial", "ledger", "runs.jsonl",
        "plan", "statistics/12", "ledger/1.commit",
        "failed.jsonl.partial", "ids/1.json.partial",
        "tokens/12/zarr.json.partial", "tokens/12/c.1.0.0.partial", "mean/12/c.1.0.partial",
        "ids", "tokens", "mean/12", "clip_key",
    ],
)  # fmt: skip
def test_nothing_is_written_outside_a_cache_through_its_links(
    make_cache: MakeCache, clips: Any, tmp_path: Path, name: str
) -> None:
    path, outside = make_cache(4).path, tmp_path / "outside"
    outside.mkdir()
    target = outside / "file"
    target.write_text('{"precious": 1}\n')
    if (path / name).is_dir():
        (path / name).rename(outside / "moved")
        (path / name).symlink_to(outside / "moved")
    else:
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(target)
    before = clips.bytes_of(outside)
    for write in (
        lambda: clips.write(path, range(8)),
        lambda: add_run(path, {"manifest": "a.csv"}),
        lambda: record_failed(path, set(), {"x": "no audio"}),
        lambda: repair_cache(path, [Damage(shard=0, file="", reason="")]),
    ):
        with suppress(CacheError, OSError):
            write()
    assert clips.bytes_of(outside) == before
    with suppress(CacheError):
        remove_cache(path)
    assert clips.bytes_of(outside) == before


def test_a_cache_may_be_reached_through_a_link(make_cache: MakeCache, clips: Any, tmp_path: Path) -> None:
    make_cache(4)
    (tmp_path / "link.zarr").symlink_to("a.zarr")
    clips.write(tmp_path / "link.zarr", range(8))
    assert len(TokenCache.open(tmp_path / "a.zarr")) == 8


def test_rm_leaves_what_is_not_the_caches(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(10, dtype="int8").path
    add_run(path, {"manifest": "a.csv"})
    mine = ["notes.txt", "tokens/12/mine.npy", "plots/a.png", "ids/mine.json", "mean/12/c.old", "tokens/c.1"]
    for name in mine:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text("mine")
    result = CliRunner().invoke(featcache, ["cache", "rm", "--yes", str(path)])
    assert result.exit_code == 0, result.output
    assert "what is not the cache's stays there: ids, mean, notes.txt, …" in result.output
    assert sorted(clips.bytes_of(path)) == sorted(mine)


def test_rm_of_a_folder_with_a_copied_zarr_json_takes_that_alone(
    make_cache: MakeCache, tmp_path: Path
) -> None:
    path = make_cache(4).path
    folder = tmp_path / "work"
    (folder / "tokens").mkdir(parents=True)
    (folder / "tokens/thesis.tex").write_text("mine")
    (folder / "zarr.json").write_bytes((path / "zarr.json").read_bytes())
    assert remove_cache(folder) == ["tokens"]
    assert (folder / "tokens/thesis.tex").exists()


def test_rm_refuses_links_and_the_folder_one_is_in(
    make_cache: MakeCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_cache(4).path
    (tmp_path / "link.zarr").symlink_to(path)
    with pytest.raises(InputError, match="is a symbolic link to"):
        remove_cache(tmp_path / "link.zarr")
    monkeypatch.chdir(path / "tokens")
    for here in (Path(".."), path):
        with pytest.raises(InputError, match="is the folder you are in, or above it"):
            remove_cache(here)
    assert len(TokenCache.open(path)) == 4


def test_what_cannot_be_read_is_reported_apart_and_never_taken_out(
    make_cache: MakeCache, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_cache(10).path
    (path / "mean/12/c.2.0").write_bytes(b"short")

    def refuse(file: Path) -> tuple[int, str]:
        if file.name == "c.1.0.0":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
        return file_crc32c(file)

    monkeypatch.setattr(verify, "file_crc32c", refuse)
    run = CliRunner().invoke(featcache, ["cache", "verify", str(path), "--repair"])
    assert run.exit_code == 1, run.output
    assert "shard 1: tokens/3/c.1.0.0 cannot be read: Input/output error" in run.output
    assert "nothing is taken out of 1 files that cannot be read" in run.output
    assert "took out shard 2" in run.output
    assert (path / "tokens/3/c.1.0.0").exists()
    monkeypatch.undo()
    assert verify_cache(path) == []
    assert len(TokenCache.open(path)) == 8


def test_verify_beside_a_writer_checks_the_finished_shards_alone(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(8).path
    with CacheWriter.create_or_open(path, clips.layout()) as writer:
        clips.add(writer, range(14))
        writer.end_shard()
        writer.annotate(clips_expected=20)
        (path / "tokens/3/zarr.json").write_text("{}")  # as if it lagged behind
        (path / "runs.jsonl").write_text("half a li\n")
        check = check_cache(path)
        assert check.damages == []
        assert (check.shards, check.writer) == (4, f"process {os.getpid()} on {socket.gethostname()}")
        output = CliRunner().invoke(featcache, ["cache", "verify", str(path)]).output
        assert "a writer is at work (process" in output
        assert "4 finished shards are checked" in output
    assert [damage.file for damage in verify_cache(path)] == ["runs.jsonl"]


def test_looking_for_a_writer_keeps_none_out(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(4).path
    (path / "lock").write_text('{"pid": 1, "host": "elsewhere"}')  # left by a killed one
    assert writer_of(path) is None
    clips.write(path, range(8))
    assert writer_of(path) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("runs.jsonl", "nonsense\n"),
        ("failed.jsonl", '{"id": 3}\n'),
        ("zarr.json", None),
        ("tokens/zarr.json", "{}"),
    ],
)
def test_files_without_a_checksum_are_checked_for_sense_and_mended(
    make_cache: MakeCache, name: str, content: str | None
) -> None:
    path = make_cache(4).path
    if content is None:
        document = json.loads((path / name).read_text())
        document["consolidated_metadata"]["metadata"]["tokens/12"]["shape"][0] = 99
        content = json.dumps(document)
    (path / name).write_text(content)
    assert [(damage.shard, damage.file) for damage in verify_cache(path)] == [(None, name)]
    assert repair_cache(path, verify_cache(path)) == []
    assert verify_cache(path) == []
    assert len(TokenCache.open(path)) == 4


@pytest.mark.parametrize("kind", ["pipe", "device", "shadow", "large", "nothing", "number", "nul"])
def test_only_what_can_be_a_manifest_is_followed(make_cache: MakeCache, tmp_path: Path, kind: str) -> None:
    path = make_cache(4).path
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(2**26 + 1)
    names = {"pipe": tmp_path / "pipe.csv", "device": "/dev/zero", "shadow": "/etc/shadow", "nul": "a\0.csv"}
    names |= {"large": tmp_path / "large.csv", "nothing": tmp_path / "none.txt"}
    add_run(path, {"manifest": str(names[kind]) if kind in names else 7})
    if kind == "number":
        with pytest.raises(CacheError, match="line 1, the last extraction, cannot be read; name a manifest"):
            last_manifest(path)
        return
    with pytest.raises(InputError, match=r"runs.jsonl names .* as the manifest, which .*; name a manifest"):
        last_manifest(path)


def test_manifests_that_may_be_are_followed(make_cache: MakeCache, tmp_path: Path) -> None:
    path = make_cache(4).path
    (tmp_path / "clips.csv").write_text("path,labels\n")
    for manifest in (tmp_path / "clips.csv", tmp_path):
        add_run(path, {"manifest": str(manifest)})
        assert last_manifest(path) == manifest


@pytest.mark.parametrize(
    "name", ["zarr.json", "runs.jsonl", "failed.jsonl", "ledger/0.json", "ids/0.json", "lock"]
)
def test_a_pipe_in_place_of_a_file_is_one_line_and_no_waiting(make_cache: MakeCache, name: str) -> None:
    path = make_cache(4).path
    (path / name).unlink(missing_ok=True)
    os.mkfifo(path / name)
    with pytest.raises((CacheError, OSError), match="not a regular file") as error:
        [TokenCache.open(path).ids, describe(path), last_manifest(path), WriterLock(path)]
    assert isinstance(error.value, CacheError) or name == "lock"


@pytest.mark.parametrize("name", ["zarr.json", "runs.jsonl", "failed.jsonl", "ledger"])
def test_no_flipped_bit_of_a_text_file_gives_a_traceback(
    make_cache: MakeCache, clips: Any, name: str
) -> None:
    path = make_cache(5, layers=(3,), has_cls=False).path
    attributes_changed(path, lambda own: own.update(clips_expected=9, parent={"path": "b", "dtype": "int8"}))
    add_run(path, {"manifest": str(path), "started": "now", "versions": {"torch": "2"}})
    record_failed(path, set(), {"broken": "not audio", "gone": "no file"})
    name = str(clips.ledger(path).relative_to(path)) if name == "ledger" else name
    raw = (path / name).read_bytes()
    where = random.Random(name)
    regions = range(0, len(raw), max(1, len(raw) // 60))
    for start in regions:
        data = bytearray(raw)
        data[min(start + where.randrange(60), len(raw) - 1)] ^= 1 << where.randrange(8)
        (path / name).write_bytes(data)
        for command in (["info"], ["ls"], ["verify"], ["info", "--json"]):
            result = CliRunner().invoke(featcache, ["cache", *command, str(path)])
            assert isinstance(result.exception, SystemExit | None), (bytes(data), result.exception)
        for use in (
            lambda: TokenCache.open(path).mean(),
            lambda: last_manifest(path),
            lambda: failed_clips(path),
        ):
            with suppress(FeatcacheError):
                use()


def test_ls_lists_what_it_cannot_read_with_the_reason(make_cache: MakeCache, tmp_path: Path) -> None:
    make_cache(4)
    make_cache(4, name="b.zarr")
    (tmp_path / "b.zarr/zarr.json").write_text("{")
    (tmp_path / "c.zarr").mkdir()
    (tmp_path / "c.zarr/ledger.jsonl").touch()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/zarr.json").write_text('{"node_type": "group", "attributes": {}}')
    lines = CliRunner().invoke(featcache, ["cache", "ls", str(tmp_path)]).output.splitlines()
    assert [line.split()[0] for line in lines] == ["a.zarr", "b.zarr", "c.zarr"]
    assert "unreadable:" in lines[1]
    assert "it is not JSON" in lines[1]
    assert "unreadable: no token cache at" in lines[2]
