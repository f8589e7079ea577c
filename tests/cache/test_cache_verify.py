"""Every wrong byte is found, and a repaired cache is filled again."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.cache import TokenCache
from featcache.cache.verify import repair_cache, verify_cache
from featcache.errors import CacheError

MakeCache = Callable[..., TokenCache]


def flip_a_byte(file: Path, where: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[where.randrange(len(data))] ^= 1 << where.randrange(8)
    file.write_bytes(data)


def shard_files(path: Path) -> dict[str, int]:
    (ledger,) = (path / "ledger").iterdir()
    lines = ledger.read_text().splitlines()
    return {name: entry["shard"] for entry in map(json.loads, lines) for name in entry["files"]}


@pytest.mark.parametrize(("dtype", "codec"), [("float16", None), ("int8", "zstd")])
def test_each_of_100_flipped_bits_is_found_and_its_shard_named(
    make_cache: MakeCache, dtype: str, codec: str | None
) -> None:
    path = make_cache(10, dtype=dtype, codec=codec).path
    assert verify_cache(path) == []
    files = shard_files(path)
    assert set(files.values()) == {0, 1, 2}
    where = random.Random(0)
    for _ in range(100):
        name = where.choice(sorted(files))
        before = (path / name).read_bytes()
        flip_a_byte(path / name, where)
        assert [(damage.shard, damage.file) for damage in verify_cache(path)] == [(files[name], name)]
        (path / name).write_bytes(before)
    assert verify_cache(path) == []


def test_any_wrong_byte_of_ledger_and_array_metadata_is_found(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(10, layers=(3,)).path
    where = random.Random(1)
    ledger = str(clips.ledger(path).relative_to(path))
    for name in [ledger] * 60 + ["tokens/3/zarr.json"] * 20:
        before, same = (path / name).read_bytes(), read_json(path / name)
        flip_a_byte(path / name, where)
        # A changed space between two fields of JSON says the same as before.
        assert verify_cache(path) or same == read_json(path / name), name
        (path / name).write_bytes(before)


def read_json(file: Path) -> Any:
    lines = file.read_text()
    return [json.loads(line) for line in lines.splitlines()] if file.suffix == ".jsonl" else json.loads(lines)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes instead of"),
        (lambda file: file.write_bytes(bytes(file.stat().st_size)), "has the checksum"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    make_cache: MakeCache, damage: Callable[[Path], Any], reason: str
) -> None:
    path = make_cache().path
    damage(path / "mean/12/c.2.0")
    (found,) = verify_cache(path)
    assert (found.shard, found.file) == (2, "mean/12/c.2.0")
    assert reason in found.reason


def test_repair_puts_damaged_shards_back_to_unfinished(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(14).path
    expected = clips.bytes_of(path)
    where = random.Random(2)
    for name in ("tokens/3/c.1.0.0", "ids/1.json", "valid/c.3"):
        flip_a_byte(path / name, where)
    assert repair_cache(path, verify_cache(path)) == [1, 3]
    assert verify_cache(path) == []
    assert not any("c.1" in name or "c.3" in name for name in clips.bytes_of(path))
    clips.write(path, range(14))
    after = clips.bytes_of(path)
    assert after == expected


def test_repair_drops_a_ledger_line_that_cannot_be_read(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(10).path
    ledger = clips.ledger(path)
    ledger.write_bytes(ledger.read_bytes().replace(b'{"shard": 1', b'{"sharx": 1'))
    with pytest.raises(CacheError, match=r"ledger/\w+.jsonl line 2 cannot be read; .*verify --repair"):
        TokenCache.open(path)
    (damage,) = [damage for damage in verify_cache(path) if damage.file == f"ledger/{ledger.name}"]
    assert (damage.shard, damage.reason) == (None, "line 2 cannot be read")
    repair_cache(path, [damage])
    assert len(TokenCache.open(path)) == 6
    clips.write(path, range(10))
    assert TokenCache.open(path).ids == [f"clip{index}" for index in range(10)]
    assert verify_cache(path) == []


def test_repair_restores_array_metadata(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache().path
    expected = clips.bytes_of(path)
    (path / "tokens/12/zarr.json").write_text("{}")
    damages = verify_cache(path)
    assert [(damage.shard, damage.file) for damage in damages] == [(None, "tokens/12/zarr.json")]
    assert repair_cache(path, damages) == []
    assert verify_cache(path) == []
    clips.write(path, range(10))
    assert clips.bytes_of(path) == expected


def test_a_cache_that_is_being_written_is_not_repaired(make_cache: MakeCache, clips: Any) -> None:
    from featcache.cache import CacheWriter

    path = make_cache().path
    with (
        CacheWriter.create_or_open(path, clips.layout()),
        pytest.raises(CacheError, match="is being written by process"),
    ):
        repair_cache(path, [])
