"""A cache is an ordinary Zarr v3 group to everyone else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr

from featcache.cache import TokenCache
from featcache.cache.format.dtypes import STORE_DTYPES

MakeCache = Callable[..., TokenCache]
STORES = [(dtype, codec) for dtype in STORE_DTYPES for codec in (None, "zstd", "blosc")]


def ours(cache: TokenCache, name: str) -> np.ndarray[Any, Any]:
    """One array of the cache as our own reader gives it, (clips, ...)."""
    rows = [cache.stored(row)[name] for row in range(len(cache))]
    spec = {spec.name: spec for spec in cache.layout.arrays()}[name]
    return np.stack(rows).view(spec.zarr).reshape(len(cache), *spec.row_shape)


def with_tensorstore(path: Path) -> np.ndarray[Any, Any]:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    array: np.ndarray[Any, Any] = tensorstore.open(spec, read=True).result().read().result()
    return array


@pytest.mark.parametrize(("dtype", "codec"), STORES)
def test_zarr_and_tensorstore_read_the_same_values(
    make_cache: MakeCache, dtype: str, codec: str | None
) -> None:
    cache = make_cache(10, dtype=dtype, codec=codec)
    group = zarr.open_group(cache.path, mode="r")
    for spec in cache.layout.arrays():
        expected = ours(cache, spec.name)
        assert expected.any()
        read = {"zarr": np.asarray(group[spec.name]), "tensorstore": with_tensorstore(cache.path / spec.name)}
        for name, array in read.items():
            assert array.dtype == expected.dtype, (name, spec.name)
            np.testing.assert_array_equal(array, expected, err_msg=f"{name} {spec.name}")


def test_listing_the_group_warns_of_nothing(make_cache: MakeCache) -> None:
    cache = make_cache()
    members = dict(zarr.open_group(cache.path, mode="r").members(max_depth=None))
    assert {spec.name for spec in cache.layout.arrays()} <= set(members)


def test_what_zarr_writes_over_an_array_is_read_wherever_it_lies(make_cache: MakeCache, clips: Any) -> None:
    """zarr-python puts the inner chunks of a shard in another order, and leaves out those of zeros."""
    cache = make_cache(8)
    array = zarr.open_array(cache.path / "tokens/12", mode="r+")
    changed = np.asarray(array)
    changed[1] = 0
    changed[5] = 7
    array[:] = changed
    clips.relist(cache.path)
    shard = (cache.path / "tokens/12/c.0.0.0").read_bytes()
    first_offset = int.from_bytes(shard[-68:-60], "little")
    cache = TokenCache.open(cache.path, "map")
    for reader in ("map", "pread", "preload"):
        read = TokenCache.open(cache.path, reader)
        np.testing.assert_array_equal(read.gather(range(8)).numpy(), changed, err_msg=reader)
        np.testing.assert_array_equal(read[1], 0)
        np.testing.assert_array_equal(read[5], 7)
    assert len(shard) < 4 * 96 + 68, (
        f"zarr stored every chunk (first at {first_offset}): this test tests nothing"
    )


def test_the_clips_of_a_shard_may_lie_in_any_order(make_cache: MakeCache) -> None:
    cache = make_cache(4)
    expected = cache.gather(range(4)).clone()
    file = cache.path / "tokens/12/c.0.0.0"
    raw = file.read_bytes()
    chunks = [raw[96 * slot : 96 * slot + 96] for slot in range(4)]
    order = [2, 0, 3, 1]
    index = np.array([[96 * order.index(slot), 96] for slot in range(4)], dtype="<u8").tobytes()
    checksum = google_crc32c_bytes(index)
    file.write_bytes(b"".join(chunks[slot] for slot in order) + index + checksum)
    for reader in ("map", "pread", "preload"):
        assert (TokenCache.open(cache.path, reader).gather(range(4)) == expected).all()
    np.testing.assert_array_equal(np.asarray(zarr.open_array(cache.path / "tokens/12", mode="r")), expected)


def google_crc32c_bytes(data: bytes) -> bytes:
    import google_crc32c

    return int(google_crc32c.value(data)).to_bytes(4, "little")


def test_an_uncompressed_shard_is_the_clips_one_after_the_other(make_cache: MakeCache) -> None:
    cache = make_cache(4, dtype="float32")
    raw = (cache.path / "tokens/3/c.0.0.0").read_bytes()
    tokens = np.frombuffer(raw[: 4 * 6 * 8 * 4], dtype="<f4").reshape(4, 6, 8)
    np.testing.assert_array_equal(tokens, cache.gather(range(4), layer=3))


def test_attributes_say_what_the_tokens_are(make_cache: MakeCache) -> None:
    attributes = json.loads((make_cache().path / "zarr.json").read_text())["attributes"]["featcache"]
    assert attributes["format"] == 2
    assert attributes["fingerprint"]["weights"] == {"digest": "a1"}
    assert attributes["store"] == {
        "dtype": "float16",
        "codec": None,
        "shard_clips": 4,
        "channels": True,
    }
    assert attributes["layers"] == [3, 12]
    assert attributes["complete"] is True
