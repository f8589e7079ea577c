"""Reading: the right clip, from every reader, in every kind of process, within the limits."""

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from featcache.cache import CacheWriter, TokenCache
from featcache.cache.format.ledger import Entry, read_ledger, rewrite_ledger
from featcache.cache.format.shard_index import encode_index
from featcache.errors import CacheError, InputError, MissingError

MakeCache = Callable[..., TokenCache]


@pytest.mark.parametrize("reader", ["map", "pread", "preload"])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_gather_gives_the_clips_in_the_order_asked_for(
    make_cache: MakeCache, clips: Any, reader: str, codec: str | None
) -> None:
    cache = make_cache(10, reader=reader, codec=codec, dtype="float32")
    rows = [9, 0, 4, 4, 7]
    cache.prefetch(rows)
    for layer in (3, 12):
        expected = torch.stack([clips.tokens(row, layer) for row in rows])
        assert torch.equal(cache.gather(rows, layer), expected)
        assert torch.equal(cache.gather(torch.tensor(rows), layer), expected)
    assert torch.equal(torch.from_numpy(cache[9].copy()), clips.tokens(9))
    assert cache.reader == reader


def test_large_batches_are_shared_between_threads(
    make_cache: MakeCache, clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.cache.read import access

    monkeypatch.setattr(access, "_SHARED", 0)
    monkeypatch.setattr(access, "numbers_of_threads", lambda: (1, 2, 4))
    cache = make_cache(10, dtype="float32", reader="map")
    rows = list(range(10)) * 50
    expected = torch.stack([clips.tokens(row) for row in rows])
    for _ in range(13):  # each number of threads four times, and the one that stays
        assert torch.equal(cache.gather(rows), expected)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.5}, 4),
        ({1: 1.0, 2: 0.97, 4: 0.96}, 1),  # not worth the threads
        ({1: 1.0, 2: 0.7, 4: 0.9}, 2),
        ({1: 1.0, 2: 1.4, 4: 2.0}, 1),
    ],
)
def test_the_number_of_threads_that_copies_fastest_stays(seconds: dict[int, float], chosen: int) -> None:
    from featcache.cache.read.fastest import Fastest

    now, done = [0.0], []
    fastest = Fastest((1, 2, 4), clock=lambda: now[0])

    def work(threads: int) -> None:
        first, amount = threads not in done, 1 + len(done) % 3
        done.append(threads)
        slow = 9.0 if first or (threads, done.count(threads)) == (chosen, 3) else 1.0  # once disturbed
        now[0] += amount * slow * seconds[threads]

    for turn in range(20):
        fastest.run(work, 1 + turn % 3)
    assert fastest.chosen == chosen
    assert done[12:] == [chosen] * 8
    assert sorted(done[:12]) == [1] * 4 + [2] * 4 + [4] * 4


def test_gather_fills_the_callers_buffer(make_cache: MakeCache) -> None:
    cache = make_cache()
    out = torch.full((3, 6, 8), 7.0, dtype=torch.float16)
    assert cache.gather([1, 2, 3], out=out) is out
    assert torch.equal(out, cache.gather([1, 2, 3]))
    for wrong in (torch.empty(2, 6, 8).half(), torch.empty(3, 6, 8), torch.empty(3, 8, 6).half().mT):
        with pytest.raises(
            InputError, match=r"gather needs a contiguous CPU buffer \(3, 6, 8\) of torch.float16"
        ):
            cache.gather([1, 2, 3], out=wrong)


def test_a_clip_is_a_read_only_view_of_the_mapped_file(make_cache: MakeCache) -> None:
    cache = make_cache()
    view = cache[5]
    assert view.shape == (6, 8)
    assert not view.flags.owndata
    assert not view.flags.writeable
    assert np.shares_memory(view, cache[5])
    del cache
    assert np.isfinite(view).all()  # the mapping lives as long as its views


@pytest.mark.parametrize("reader", ["map", "pread", "preload"])
def test_rows_outside_the_cache_are_an_index_error(make_cache: MakeCache, reader: str) -> None:
    cache = make_cache(reader=reader)
    np.testing.assert_array_equal(cache[-1], cache[9])
    for row in (10, -11):
        with pytest.raises(IndexError, match="of a cache with 10 clips"):
            cache[row]
    with pytest.raises(IndexError, match=r"rows 3\.\.10 of a cache with 10 clips"):
        cache.gather([3, 10])


def test_columns_leave_out_the_holes(make_cache: MakeCache, clips: Any) -> None:
    cache = make_cache(6, dtype="float32")
    clips.write(cache.path, range(11), dtype="float32")  # grows: shard 1 keeps its two holes
    cache = TokenCache.open(cache.path)
    assert cache.clips.counts == [4, 2, 4, 1]
    assert cache.ids == [f"clip{index}" for index in range(11)]
    assert cache.num_valid.tolist() == [clips.valid(index) for index in range(11)]
    assert cache.rows_of([clips.key(7), b"x" * 16, clips.key(0)]) == [7, None, 0]
    for index in range(11):
        tokens = clips.tokens(index)
        assert torch.equal(torch.from_numpy(cache[index].copy()), tokens)
        assert torch.allclose(cache.mean()[index], tokens[: clips.valid(index)].mean(0))
        assert torch.equal(cache.cls(layer=3)[index], clips.tokens(index, 3)[0])
    assert torch.equal(cache.mean([8, 2]), cache.mean()[[8, 2]])
    assert torch.equal(cache.cls([8, 2], layer=3), cache.cls(layer=3)[[8, 2]])


def test_the_mean_is_of_the_tokens_before_they_were_quantised(make_cache: MakeCache, clips: Any) -> None:
    cache = make_cache(dtype="int4")
    assert np.allclose(cache.mean()[1], clips.tokens(1).mean(0).numpy(), atol=1e-6)


def test_an_empty_cache_has_no_clips(make_cache: MakeCache) -> None:
    cache = make_cache(0)
    assert len(cache) == 0
    assert cache.ids == []
    assert cache.mean().shape == (0, 8)
    assert cache.gather([]).shape == (0, 6, 8)
    assert cache.rows_of([b"x" * 16]) == [None]


def test_a_cache_without_cls_says_so(make_cache: MakeCache) -> None:
    assert make_cache(has_cls=False).cls() is None


def test_unknown_layers_and_readers_are_named(make_cache: MakeCache) -> None:
    cache = make_cache()
    with pytest.raises(InputError, match="no layer named '11'; known: 3, 12"):
        cache.gather([0], layer=11)
    with pytest.raises(
        InputError, match="no reader named 'mmap'; did you mean 'map'\\? known: auto, map, pread"
    ):
        TokenCache.open(cache.path, "mmap")


def test_a_cache_is_a_zarr_group(make_cache: MakeCache) -> None:
    cache = make_cache()
    assert cache.as_zarr()["valid"][:].tolist() == cache.num_valid.tolist()


def test_the_environment_chooses_the_reader(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_cache().path
    assert TokenCache.open(path).reader == "map"
    monkeypatch.setenv("FEATCACHE_READER", "pread")
    assert TokenCache.open(path).reader == "pread"
    assert TokenCache.open(path, "map").reader == "map"


@pytest.mark.parametrize(("map_ms", "choice"), [(0, "map"), (300, "pread")])
def test_auto_takes_pread_where_it_is_clearly_faster(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch, map_ms: int, choice: str
) -> None:
    import time

    from featcache.cache.read import choose

    class SlowMap(choose.MapAccess):
        def read(self, *arguments: Any) -> None:
            time.sleep(map_ms / 1000)
            super().read(*arguments)

    path = make_cache(40).path
    monkeypatch.setattr(choose, "_SMALL", 0)
    monkeypatch.setattr(choose, "_CLEARLY", 3.0)
    monkeypatch.setitem(choose.READERS, "map", SlowMap)
    assert TokenCache.open(path, "auto").reader == choice


def test_preloading_more_than_fits_is_refused(make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(reader="preload")
    monkeypatch.setattr(os, "sysconf", lambda name: 1 if name == "SC_AVPHYS_PAGES" else 100)
    with pytest.raises(
        InputError, match=r"preloading tokens/12 takes 0.0 GB, and 0.0 GB of memory are free; use"
    ):
        cache.gather([0])


@pytest.mark.parametrize("context", [None, "fork", "spawn"])
def test_a_data_loader_gives_the_same_clips_in_every_kind_of_worker(
    make_cache: MakeCache, clips: Any, context: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(10, dtype="int8")
    expected = cache.gather(range(10)).float() * cache.scales(range(10))[..., None]
    dataset = cache.dataset()
    options: dict[str, Any] = {"num_workers": 0 if context is None else 1, "multiprocessing_context": context}
    one_by_one = list(DataLoader(dataset, batch_size=5, **options))
    batches = BatchSampler(SequentialSampler(dataset), 5, drop_last=False)
    gathered = (
        list(DataLoader(dataset, batch_size=None, sampler=batches, **options)) if context != "spawn" else []
    )
    for loaded in filter(None, (one_by_one, gathered)):
        assert torch.equal(torch.cat([tokens for tokens, _ in loaded]), expected)
        assert torch.equal(torch.cat([valid for _, valid in loaded]), cache.mask(range(10)))


def test_a_pickled_cache_is_its_path_and_reader(make_cache: MakeCache) -> None:
    cache = make_cache(reader="pread")
    cache.gather([0])
    data = pickle.dumps(cache)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert (copy.path, copy.reader, len(copy)) == (cache.path, "pread", 10)
    preloaded = TokenCache.open(cache.path, "preload")
    preloaded.gather([0])
    assert len(pickle.dumps(preloaded)) < 500
    assert pickle.loads(pickle.dumps(preloaded)).reader == "map"


SOME = np.random.default_rng(0).choice(20_000, 500, replace=False)


@pytest.fixture
def many_shards(tmp_path: Path, clips: Any) -> Path:
    """20,000 shards of one clip: only the tokens of `SOME` are there, hard links to one file."""
    path = tmp_path / "many.zarr"
    clips.write(path, [1], layers=(3,), shard_clips=1, has_cls=False)
    first = path / "tokens/3/c.0.0.0"
    for shard in {*SOME.tolist()} - {0}:
        os.link(first, path / f"tokens/3/c.{shard}.0.0")
    (entry,) = read_ledger(path)
    record = entry.files["tokens/3/c.0.0.0"]
    rewrite_ledger(
        path,
        (Entry(shard=shard, clips=1, files={f"tokens/3/c.{shard}.0.0": record}) for shard in range(20_000)),
    )
    return path


@pytest.fixture
def few_handles() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("reader", ["map", "pread"])
def test_a_cache_of_20000_shards_is_read_with_256_file_handles(
    many_shards: Path, few_handles: int, clips: Any, reader: str
) -> None:
    cache = TokenCache.open(many_shards, reader)
    assert len(cache) == 20_000
    assert (cache.gather(SOME) == clips.tokens(1, 3).half()).all()
    assert len(cache.files) == cache.files.max_open == 64
    assert len(os.listdir("/proc/self/fd")) < 200


def test_a_limit_of_address_space_bounds_what_is_mapped(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(20)
    size = (cache.path / "tokens/12/c.0.0.0").stat().st_size
    real = resource.getrlimit
    limits = {resource.RLIMIT_AS: (4 * size, 4 * size)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which) or real(which))
    cache = TokenCache.open(cache.path, "map")
    cache.gather(range(20))
    assert len(cache.files) == 2


def test_a_view_outlives_the_file_that_was_closed_for_others(make_cache: MakeCache) -> None:
    cache = make_cache(20)
    view = cache[0]
    expected = view.copy()
    cache.files.max_open = 1
    cache.gather(range(20))
    np.testing.assert_array_equal(view, expected)


def test_opening_reads_no_shard(make_cache: MakeCache, clips: Any) -> None:
    """Two million clips, of which only the metadata and the ledger exist."""
    path = make_cache(0, shard_clips=256).path
    record = {"bytes": 24_576, "crc32c": "00c0ffee"}
    names = [spec.name for spec in clips.layout().arrays()]
    rewrite_ledger(
        path,
        (
            Entry(shard=shard, clips=256, files={f"{name}/c.{shard}.0": record for name in names})
            for shard in range(7812)
        ),
    )
    cache = TokenCache.open(path)
    assert len(cache) == 1_999_872
    assert len(cache.files) == 0


def test_opening_what_is_no_cache_says_what_is_there(tmp_path: Path, make_cache: MakeCache) -> None:
    with pytest.raises(
        MissingError, match=r"no token cache at .*nothing; create one with 'featcache extract'"
    ):
        TokenCache.open(tmp_path / "nothing")
    (tmp_path / "zarr.json").write_text('{"node_type": "group", "attributes": {}}')
    with pytest.raises(CacheError, match=r"is not a token cache: its zarr.json has no featcache attributes"):
        TokenCache.open(tmp_path)
    document = make_cache().path / "zarr.json"
    document.write_text(document.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(
        CacheError, match="has cache format 3, this featcache reads 1 and 2; install the version"
    ):
        TokenCache.open(document.parent)


@pytest.mark.parametrize("reader", ["map", "pread"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: None, "is missing although the ledger lists it; 'featcache cache verify --repair'"),
        (
            lambda raw: raw[:20],
            "is damaged: it has 20 bytes instead of 452; 'featcache cache verify --repair' drops the shard",
        ),
        (lambda raw: b"", "is damaged: it has 0 bytes instead of 452"),
        (lambda raw: raw[:-1] + b"x", "is damaged: the checksum of its index is wrong"),
        (
            lambda raw: raw[:-68] + encode_index([96, 96, 9600], 4),
            "is damaged: its index points beyond its end",
        ),
        (
            lambda raw: raw[:-68] + encode_index([96, 96, 95], 4),
            "a clip has another length than its 96 bytes",
        ),
    ],
)
def test_a_damaged_shard_is_named(
    make_cache: MakeCache, reader: str, damage: Callable[[bytes], bytes | None], message: str
) -> None:
    cache = make_cache(reader=reader)
    file = cache.path / "tokens/12/c.1.0.0"
    changed = damage(file.read_bytes())
    file.unlink() if changed is None else file.write_bytes(changed)
    cache.gather([0, 1])
    with pytest.raises(CacheError, match=rf"c\.1\.0\.0:? {message}|c\.1\.0\.0: {message}"):
        cache.gather([0, 5])


@pytest.mark.parametrize("name", ["mean/12/c.1.0", "ids/1.json", "clip_key/c.1.0"])
def test_a_missing_column_file_is_named(make_cache: MakeCache, name: str) -> None:
    cache = make_cache()
    (cache.path / name).unlink()
    with pytest.raises(
        CacheError, match=rf"{name} is missing although .*; 'featcache cache verify --repair' drops"
    ):
        [cache.mean(), cache.ids, cache.keys]


def test_shards_without_a_ledger_entry_do_not_count(make_cache: MakeCache, clips: Any) -> None:
    cache = make_cache(10)
    ledger = clips.ledger(cache.path)
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text(lines[0] + lines[2])
    assert TokenCache.open(cache.path).ids == ["clip0", "clip1", "clip2", "clip3", "clip8", "clip9"]
    ledger.write_text(lines[0] + lines[1][:-1])  # cut short by a crash
    assert len(TokenCache.open(cache.path)) == 4
    ledger.write_text("{}\n" + lines[0])
    with pytest.raises(
        CacheError, match=r"ledger/\w+.jsonl line 1 cannot be read; 'featcache cache verify --repair'"
    ):
        TokenCache.open(cache.path)


def test_a_cache_that_is_being_written_can_be_read(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(0).path
    with CacheWriter.create_or_open(path, clips.layout()) as writer:
        clips.add(writer, range(6))
        writer.end_shard()
        writer.annotate(clips_expected=20)
        cache = TokenCache.open(path)
        assert len(cache) == 6
        assert not cache.complete
    assert TokenCache.open(path).complete


def test_reading_writes_nothing_and_needs_no_right_to(
    make_cache: MakeCache, clips: Any, warm_process: Callable[..., Any]
) -> None:
    path = make_cache().path
    before = clips.bytes_of(path)
    script = f"from featcache.cache import TokenCache; print(len(TokenCache.open({str(path)!r}).mean()))"
    assert warm_process("python", "-c", script).communicate() == ("10\n", "")
    assert clips.bytes_of(path) == before


def test_opening_a_cache_does_not_wait_for_torch(make_cache: MakeCache) -> None:
    path = make_cache().path
    script = (
        "import sys; from featcache.cache import TokenCache; "
        f"cache = TokenCache.open({str(path)!r}); cache.num_valid, cache.ids, cache[0]; "
        "print({'torch', 'zarr'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True, cwd="/")
    assert done.stdout == "set()\n", done.stderr
