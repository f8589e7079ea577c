"""A cache as people use it from Python: sequence, tokens, masks, ids, datasets with labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import featcache
from featcache.cache import TokenCache
from featcache.errors import InputError, MissingError

MakeCache = Callable[..., TokenCache]
Make = Callable[..., tuple[Path, Path]]


def test_a_cache_is_a_sequence_of_clips(make_cache: MakeCache) -> None:
    cache = make_cache(7, dtype="float32")
    assert len(cache) == 7
    assert cache[2].shape == (6, 8)
    assert not cache[2].flags.writeable
    np.testing.assert_array_equal(cache[-1], cache[6])
    np.testing.assert_array_equal(cache[1:6:2], np.stack([cache[1], cache[3], cache[5]]))
    assert cache[7:].shape == (0, 6, 8)
    np.testing.assert_array_equal(np.stack(list(cache)), cache[:])
    for row in (7, -8):
        with pytest.raises(IndexError, match="of a cache with 7 clips"):
            cache[row]


def test_its_repr_says_what_it_holds(make_cache: MakeCache) -> None:
    cache = make_cache(7, dtype="int8")
    assert repr(cache) == (
        f"TokenCache({str(cache.path)!r}: fake, 7 clips of 2 x 3 tokens x 8 int8, layers 3, 12, 6.72e-07 GB)"
    )


def test_rows_may_be_numbers_arrays_and_tensors_and_count_from_the_end(make_cache: MakeCache) -> None:
    cache = make_cache(7)
    expected = cache.gather([6, 0])
    for rows in ([-1, 0], (-1, 0), np.array([-1, 0]), torch.tensor([6, 0])):
        assert torch.equal(cache.gather(rows), expected)
    assert torch.equal(cache.gather(-1), expected[:1])
    assert torch.equal(cache.mean([-1]), cache.mean()[-1:])
    with pytest.raises(IndexError, match="of a cache with 7 clips"):
        cache.tokens([0, 7])
    with pytest.raises(InputError, match="rows are whole numbers, not float64"):
        cache.gather([0.5])
    with pytest.raises(InputError, match=r"rows are whole numbers, .*; find\(ids\) gives those of ids"):
        cache.gather(["clip1"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "int4"])
def test_tokens_are_floats_whatever_the_storage(make_cache: MakeCache, clips: Any, dtype: str) -> None:
    cache = make_cache(5, dtype=dtype)
    tokens = cache.tokens([4, 1])
    assert tokens.is_floating_point()
    slack = {"int4": 0.3, "int8": 0.02}.get(dtype, 0.02)
    torch.testing.assert_close(
        tokens.float(), torch.stack([clips.tokens(4), clips.tokens(1)]), atol=slack, rtol=0
    )


def test_the_mask_says_which_tokens_are_audio(make_cache: MakeCache, clips: Any) -> None:
    cache = make_cache(4)
    mask = cache.mask([0, 1])
    assert mask.dtype == torch.bool
    assert mask.sum(dim=1).tolist() == [clips.valid(0), clips.valid(1)]
    assert mask[0].tolist() == [True] * 4 + [False] * 2


def test_clips_are_found_by_their_ids(make_cache: MakeCache) -> None:
    cache = make_cache(7)
    assert cache.find(["clip5", "clip0"]) == [5, 0]
    assert cache.find("clip3") == [3]
    with pytest.raises(InputError, match=r"no clip in .* named 'clip55'; did you mean 'clip5'"):
        cache.find(["clip55"])


def test_a_with_block_lets_go_of_the_files(make_cache: MakeCache) -> None:
    with make_cache(7) as cache:
        cache.gather([0, 6])
        assert len(cache.files) > 0
    assert len(cache.files) == 0
    assert cache.gather([0]).shape == (1, 6, 8)  # opened again


def test_a_dataset_joins_the_labels_of_a_manifest(make_tokens: Make) -> None:
    path, manifest = make_tokens(clips=24, single=True)
    cache = TokenCache.open(path)
    dataset = cache.dataset(manifest, split="train")
    assert dataset.classes == ("label0", "label1", "label2")
    assert len(dataset) == 12
    tokens, valid, target = dataset[3]
    assert (tokens.shape, valid.shape, target.shape) == ((12, 16), (12,), ())
    clips = {clip.id: clip for clip in featcache.read_manifest(manifest)}
    assert dataset.classes[target] == clips[dataset.ids[3]].labels[0]
    row = cache.find(dataset.ids[3:4])
    assert torch.equal(tokens, cache.tokens(row)[0])
    assert torch.equal(valid, cache.mask(row)[0])


def test_a_dataset_of_clips_with_any_number_of_labels_gives_rows_of_0_and_1(make_tokens: Make) -> None:
    path, manifest = make_tokens(clips=24)
    dataset = TokenCache.open(path).dataset(manifest)
    clips = list(featcache.read_manifest(manifest))
    for clip, (_, _, target) in zip(clips, dataset, strict=True):
        assert target.dtype == torch.float32
        assert [name for name, present in zip(dataset.classes, target, strict=True) if present] == sorted(
            clip.labels
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_head_learns_from_a_data_loader(make_tokens: Make, workers: int) -> None:
    path, manifest = make_tokens(clips=24, single=True)
    dataset = TokenCache.open(path).dataset(manifest, split="train")
    head = featcache.build_head("protobin", 16, 3)
    seen = 0
    for tokens, valid, target in DataLoader(dataset, batch_size=5, num_workers=workers):
        loss = torch.nn.functional.cross_entropy(head(tokens, None, valid), target)
        loss.backward()
        seen += len(tokens)
    assert seen == len(dataset)
    assert head.prototypes.grad.abs().sum() > 0


def test_a_dataset_without_labels_gives_tokens_and_masks(make_cache: MakeCache) -> None:
    cache = make_cache(5, dtype="int8")
    tokens, valid = cache.dataset()[[0, 3]]
    assert torch.equal(tokens, cache.tokens([0, 3]))
    assert torch.equal(valid, cache.mask([0, 3]))


def test_what_a_dataset_cannot_be_made_of_is_said(make_tokens: Make, tmp_path: Path) -> None:
    path, manifest = make_tokens(clips=24)
    cache = TokenCache.open(path)
    with pytest.raises(
        InputError, match=r"no clip of .*tokens.csv has the split 'tests'; its splits: test, train, valid"
    ):
        cache.dataset(manifest, split="tests")
    with pytest.raises(InputError, match="a cache knows no splits; give the manifest that has them"):
        cache.dataset(split="train")
    with pytest.raises(MissingError, match="no manifest at"):
        cache.dataset(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor], ids=["int", "numpy", "torch"])
def test_a_dataset_takes_the_numbers_of_any_sampler(
    make_cache: MakeCache, kind: Callable[[int], Any]
) -> None:
    data = make_cache().dataset()
    tokens, valid = data[kind(3)]
    assert torch.equal(tokens, data.cache.gather([3])[0])
    assert torch.equal(valid, data.cache.mask([3])[0])
