"""A cache that was damaged, or made by someone who means harm, costs one clear line and nothing else."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from featcache.cache import TokenCache
from featcache.errors import CacheError

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
