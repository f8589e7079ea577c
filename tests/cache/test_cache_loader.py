"""Batches in memory that is used again: the same clips, in the order asked for, and never one too early."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from featcache.cache import TokenCache
from featcache.errors import InputError

MakeCache = Callable[..., TokenCache]
Make = Callable[..., tuple[Path, Path]]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int4"])
def test_a_loader_gives_what_the_dataset_gives(make_cache: MakeCache, workers: int, dtype: str) -> None:
    cache = make_cache(30, dtype=dtype)
    loader = cache.dataset().loader(4, workers=workers)
    assert len(loader) == 8
    for _ in range(2):  # its workers live on
        start = 0
        for tokens, valid in loader:
            rows = range(start, start + len(tokens))
            assert torch.equal(tokens, cache.tokens(rows))
            assert torch.equal(valid, cache.mask(rows))
            start = rows.stop
        assert start == 30


def test_a_batch_stays_until_the_next_is_asked_for_and_its_memory_is_used_again(
    make_cache: MakeCache,
) -> None:
    cache = make_cache(60)
    places = set()
    for number, (tokens, _) in enumerate(cache.dataset().loader(2, workers=2)):
        if number % 7 == 0:
            for _ in range(20):  # time for the workers to run ahead
                torch.randn(100, 100) @ torch.randn(100, 100)
        assert torch.equal(tokens, cache.tokens([2 * number, 2 * number + 1]))
        places.add(tokens.data_ptr())
    assert len(places) == 5


def test_targets_and_a_new_order_come_with_every_iteration(make_tokens: Make) -> None:
    path, manifest = make_tokens(clips=48, single=True)
    dataset = TokenCache.open(path).dataset(manifest, split="train")
    expected = {tokens.numpy().tobytes(): int(target) for tokens, _, target in dataset}
    loader = dataset.loader(5, shuffle=True, workers=1)
    orders = []
    for _ in range(2):
        seen = [
            (own.numpy().tobytes(), int(target))
            for tokens, _, targets in loader
            for own, target in zip(tokens, targets, strict=True)
        ]
        assert dict(seen) == expected
        assert len(seen) == len(dataset)
        orders.append([name for name, _ in seen])
    assert orders[0] != orders[1]


def test_the_last_batch_may_be_left_out(make_cache: MakeCache) -> None:
    loader = make_cache(10).dataset().loader(4, workers=0, drop_last=True)
    assert [len(tokens) for tokens, _ in loader] == [4, 4]
    assert len(loader) == 2


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"batch_size": 2, "workers": -1}])
def test_a_loader_without_clips_or_workers_is_refused(make_cache: MakeCache, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="a loader needs a batch_size of 1 or more and workers of 0 or more"):
        make_cache(4).dataset().loader(**wrong)


def test_a_data_loader_asks_for_whole_batches(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(10)
    expected, calls = cache.tokens(range(10)), []
    gather = TokenCache.gather

    def counted(own: TokenCache, rows: Any, *rest: Any, **options: Any) -> torch.Tensor:
        calls.append(len(rows))
        return gather(own, rows, *rest, **options)

    monkeypatch.setattr(TokenCache, "gather", counted)
    assert torch.equal(torch.cat([tokens for tokens, _ in DataLoader(cache.dataset(), 4)]), expected)
    assert calls == [4, 4, 2]
