"""What is read of a cache is what was written, or it is not read: labels, tokens, vectors."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.cache import TokenCache
from featcache.cache.convert import convert_cache
from featcache.cache.verify import verify_cache
from featcache.errors import CacheError, InputError
from featcache.records import add_run, last_manifest

MakeCache = Callable[..., TokenCache]


def test_an_earlier_manifest_never_stands_in_for_the_last_one(make_cache: MakeCache, tmp_path: Path) -> None:
    path = make_cache(4).path
    for name in ("old.csv", "new.csv"):
        (tmp_path / name).write_text("path,labels\n")
        add_run(path, {"manifest": str(tmp_path / name)})
    raw = (path / "runs.jsonl").read_bytes()
    for damaged in (raw[:-4], raw[:-3] + b"\x01" + raw[-2:]):
        (path / "runs.jsonl").write_bytes(damaged)
        with pytest.raises(CacheError, match="line 2, the last extraction, cannot be read; name a manifest"):
            last_manifest(path)
    add_run(path, {"manifest": str(tmp_path / "new.csv")})
    assert last_manifest(path) == tmp_path / "new.csv"


@pytest.mark.parametrize("name", ["windows.csv", "clips.csv"])
def test_labels_that_lie_in_the_cache_are_checked_and_move_with_it(
    make_cache: MakeCache, tmp_path: Path, name: str
) -> None:
    path = make_cache(4).path
    (path / name).write_text("path,labels\na.wav,dog\n")
    add_run(path, {"manifest": str(path / name)})
    convert_cache(path, tmp_path / "b.zarr")
    path.rename(tmp_path / "moved.zarr")
    for place in (tmp_path / "moved.zarr", tmp_path / "b.zarr"):
        assert last_manifest(place) == place / name
        assert verify_cache(place) == []
        (place / name).write_text("path,labels\na.wav,fog\n")
        with pytest.raises(InputError, match="is not as extraction wrote it; run the extract command again"):
            last_manifest(place)
        (found,) = verify_cache(place)
        assert (found.file, found.unreadable) == (name, True)
        (place / name).unlink()
        with pytest.raises(InputError, match="cannot be read"):
            last_manifest(place)


def flipped(file: Path, place: int = 300) -> None:
    """Another bit in a file of unchanged length."""
    raw = bytearray(file.read_bytes())
    raw[place] ^= 4
    file.write_bytes(raw)


@pytest.mark.parametrize("reader", ["map", "pread", "preload"])
def test_tokens_are_checked_before_they_are_read_where_asked(make_cache: MakeCache, reader: str) -> None:
    path = make_cache(10).path
    flipped(path / "tokens/12/c.1.0.0")
    assert TokenCache.open(path, reader).gather([4, 5]).shape == (2, 6, 8)
    cache = TokenCache.open(path, reader, checked=True)
    if reader != "preload":
        assert cache.gather([0, 9]).shape == (2, 6, 8)
    with pytest.raises(
        CacheError, match=r"tokens/12/c\.1\.0\.0 is damaged: its checksum is not the ledger's"
    ):
        cache.gather([4, 5])
    later = TokenCache.open(path, reader)
    later.gather([4])
    later.checked = True
    if reader != "preload":
        with pytest.raises(CacheError, match="is damaged"):
            later.gather([4])
    assert pickle.loads(pickle.dumps(cache)).checked


def test_damage_is_never_copied_into_a_cache_that_looks_sound(make_cache: MakeCache, tmp_path: Path) -> None:
    path = make_cache(10).path
    flipped(path / "tokens/3/c.0.0.0")
    with pytest.raises(CacheError, match="is damaged"):
        convert_cache(path, tmp_path / "b.zarr")


@pytest.mark.parametrize("codec", ["zstd", "blosc"])
def test_a_clip_that_cannot_be_decompressed_is_one_line(make_cache: MakeCache, codec: str) -> None:
    path = make_cache(4, codec=codec).path
    file = path / "tokens/12/c.0.0.0"
    raw = bytearray(file.read_bytes())
    raw[:40] = b"\xff" * 40
    file.write_bytes(raw)
    with pytest.raises(CacheError, match="cannot be decompressed"):
        TokenCache.open(path).gather([0])


def test_vectors_of_another_width_than_the_attributes_say_are_refused(make_cache: MakeCache) -> None:
    path = make_cache(8, layers=(3,), has_cls=False).path
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["featcache"]["dim"] = 4
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(CacheError, match=r"the attributes in zarr\.json are damaged"):
        TokenCache.open(path).mean()
    with pytest.raises(CacheError, match=r"the attributes in zarr\.json are damaged"):
        TokenCache.open(path).mean([1])
