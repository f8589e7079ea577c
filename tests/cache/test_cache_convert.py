"""A cache derived from another without the encoder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.cache import TokenCache, convert
from featcache.cache.convert import convert_cache
from featcache.errors import InputError, MismatchError

MakeCache = Callable[..., TokenCache]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_it_is_as_if_it_had_been_extracted_so(
    make_cache: MakeCache, tmp_path: Path, clips: Any, dtype: str, codec: str | None
) -> None:
    parent = make_cache(10, dtype="float32")
    converted = convert_cache(parent.path, tmp_path / "b.zarr", dtype=dtype, codec=codec, shard_clips=3)
    clips.write(tmp_path / "c.zarr", range(10), dtype=dtype, codec=codec, shard_clips=3)
    ours, theirs = clips.bytes_of(converted.path), clips.bytes_of(tmp_path / "c.zarr")
    assert {name for name in ours if ours[name] != theirs.get(name)} == {"zarr.json"}
    assert converted.fingerprint == parent.fingerprint
    assert converted.complete


def test_layers_are_picked_and_vectors_kept(make_cache: MakeCache, tmp_path: Path) -> None:
    parent = make_cache(10, dtype="int8", codec="blosc")
    converted = convert_cache(parent.path, tmp_path / "b.zarr", layers=[3], dtype="int4")
    assert converted.layers == (3,)
    np.testing.assert_array_equal(converted.mean(layer=3), parent.mean(layer=3))
    np.testing.assert_array_equal(converted.cls(layer=3), parent.cls(layer=3))
    assert converted.ids == parent.ids
    assert (converted.keys == parent.keys).all()
    again = convert_cache(parent.path, tmp_path / "c.zarr", layers=[12])  # same dtype: bit for bit
    assert torch.equal(again.gather(range(10)), parent.gather(range(10)))
    assert torch.equal(again.scales(range(10)), parent.scales(range(10)))


def test_it_says_what_it_was_made_from(make_cache: MakeCache, tmp_path: Path) -> None:
    parent = make_cache(10)
    (parent.path / "runs.jsonl").write_text('{"manifest": "clips.csv"}\n')
    convert_cache(parent.path, tmp_path / "b.zarr", dtype="int8")
    last = convert_cache(tmp_path / "b.zarr", tmp_path / "c.zarr", layers=[12])
    assert (last.path / "runs.jsonl").read_text() == '{"manifest": "clips.csv"}\n'
    assert last.attributes["parent"] == {
        "path": str(tmp_path / "b.zarr"),
        "dtype": "int8",
        "layers": [3, 12],
        "parent": {"path": str(parent.path), "dtype": "float16", "layers": [3, 12], "parent": None},
    }


def test_a_conversion_that_was_stopped_goes_on(
    make_cache: MakeCache, tmp_path: Path, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = make_cache(21)
    convert_cache(parent.path, tmp_path / "unbroken.zarr", dtype="int8", shard_clips=4)
    calls: Iterator[None] = iter([None, None])
    original = convert._copy

    def stopping(*arguments: Any) -> None:
        if next(calls, "stop") == "stop":
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(convert, "_CLIPS_AT_ONCE", 5)
    monkeypatch.setattr(convert, "_copy", stopping)
    with pytest.raises(KeyboardInterrupt):
        convert_cache(parent.path, tmp_path / "b.zarr", dtype="int8", shard_clips=4)
    assert len(TokenCache.open(tmp_path / "b.zarr")) == 8
    monkeypatch.undo()
    convert_cache(parent.path, tmp_path / "b.zarr", dtype="int8", shard_clips=4)
    assert clips.bytes_of(tmp_path / "b.zarr") == clips.bytes_of(tmp_path / "unbroken.zarr")


def test_what_cannot_be_converted_is_said(make_cache: MakeCache, tmp_path: Path) -> None:
    parent = make_cache(10)
    with pytest.raises(InputError, match="no layer named '7'; known: 3, 12"):
        convert_cache(parent.path, tmp_path / "b.zarr", layers=[7])
    with pytest.raises(InputError, match=r"cannot convert .*a.zarr into itself; name another path"):
        convert_cache(parent.path, parent.path)
    convert_cache(parent.path, tmp_path / "b.zarr", dtype="int8")
    with pytest.raises(MismatchError, match=r"store.dtype: there 'int8', wanted 'int4'"):
        convert_cache(parent.path, tmp_path / "b.zarr", dtype="int4")
    assert json.loads((tmp_path / "b.zarr/zarr.json").read_text())["attributes"]["featcache"]["complete"]


def test_a_shard_of_more_clips_than_memory_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shard_clips is 1000000000000; wanted .* at most 65,536"):
        convert_cache(tmp_path / "a.zarr", tmp_path / "b.zarr", shard_clips=10**12)
