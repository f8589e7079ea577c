"""Several extractions fill one cache: each writes its share, and together they write what one would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from featcache.cache import TokenCache
from featcache.cache.format.durable import partial_path, writer_name
from featcache.cache.format.ledger import read_ledger
from featcache.cache.verify import repair_cache, verify_cache
from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.extraction.extract import extract
from featcache.extraction.shards import Shards
from featcache.extraction.share import Share, share_of
from featcache.records import failed_clips, last_manifest

Make = Callable[..., Path]
SETTINGS: dict[str, Any] = {"encoder": "logmel", "clip_seconds": 1.0, "shard_clips": 4, "batch_size": 2}
LAUNCHERS = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


def files(cache: Path) -> dict[str, bytes]:
    """Every file but the times of runs."""
    found = {str(file.relative_to(cache)): file for file in cache.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if name != "runs.jsonl"}


@pytest.fixture
def manifest(make_manifest: Make, make_audio: Make, tmp_path: Path) -> Path:
    """18 clips of unequal length; three cannot be decoded."""
    made = make_manifest(18)
    for index in range(0, 18, 5):
        make_audio(f"audio/{index}.wav", seconds=0.5, seed=index)
    for index in (3, 9, 17):
        (tmp_path / f"audio/{index}.wav").write_bytes(b"no audio" * index)
    return made


@pytest.mark.parametrize("store_dtype", ["float16", "int8"])
@pytest.mark.parametrize("count", [2, 5])
def test_the_files_are_those_of_one_writer(
    manifest: Path, tmp_path: Path, store_dtype: str, count: int
) -> None:
    settings = SETTINGS | {"store_dtype": store_dtype}
    whole = extract(manifest, out=tmp_path / "whole.zarr", **settings)
    done = [
        extract(manifest, out=tmp_path / "many.zarr", writer=f"{rank}/{count}", **settings)
        for rank in reversed(range(count))
    ]
    assert files(tmp_path / "many.zarr") == files(tmp_path / "whole.zarr")
    assert sum(own.encoded for own in done) == whole.encoded == 15
    assert [own.complete for own in done] == [False] * (count - 1) + [True]
    assert done[-1].failed == whole.failed == failed_clips(tmp_path / "many.zarr")
    assert list(whole.failed) == [f"audio/{index}.wav" for index in (3, 9, 17)]
    assert last_manifest(tmp_path / "many.zarr") == manifest
    assert verify_cache(tmp_path / "many.zarr") == []


def test_a_clip_that_fails_moves_no_other_into_another_shard(
    manifest: Path, tmp_path: Path, make_audio: Make
) -> None:
    extract(manifest, out=tmp_path / "a.zarr", **SETTINGS)
    before = files(tmp_path / "a.zarr")
    make_audio("audio/3.wav", seed=3)
    extract(manifest, out=tmp_path / "b.zarr", **SETTINGS)
    after = files(tmp_path / "b.zarr")
    assert [name for name in before if "tokens/0/c." in name and before[name] != after[name]] == [
        "tokens/0/c.0.0.0"
    ]


def test_what_failed_is_tried_again_once_everything_else_is_there(
    make_manifest: Make, tmp_path: Path
) -> None:
    manifest, cut = make_manifest(9), tmp_path / "audio/2.wav"
    cut.write_bytes(cut.read_bytes()[:20_000])
    assert list(extract(manifest, out=tmp_path / "c.zarr", **SETTINGS).failed) == ["audio/2.wav"]
    again = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (again.encoded, list(again.failed)) == (0, ["audio/2.wav"])
    done = extract(manifest, out=tmp_path / "c.zarr", accept_truncated=True, **SETTINGS)
    assert (done.encoded, done.failed) == (1, {})
    assert failed_clips(tmp_path / "c.zarr") == {}
    assert TokenCache.open(tmp_path / "c.zarr").ids[-1] == "audio/2.wav"


def test_a_clip_taken_out_of_the_manifest_does_not_hold_up_its_shard(
    make_manifest: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(9)
    extract(manifest, out=tmp_path / "c.zarr", writer="0/2", **SETTINGS)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(line for line in lines if "audio/5.wav" not in line) + "\n")
    done = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, done.present, done.complete) == (3, 5, True)
    assert len(TokenCache.open(tmp_path / "c.zarr")) == 8


def test_an_idle_writer_takes_over_what_a_slower_one_has_not_begun(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "many.zarr"
    extract(manifest, out=tmp_path / "whole.zarr", **SETTINGS)
    extract(manifest, out=out, writer="4/5", **SETTINGS)  # the cache is there, with its plan
    layout = TokenCache.open(out).layout
    begun = partial_path(out / layout.tokens(0).chunk_file(1), writer_name())  # by a writer that lives
    begun.touch()
    done = extract(manifest, out=out, writer="0/2", takeover=True, **SETTINGS)
    assert (done.complete, done.lost) == (False, [])
    assert sorted(entry.shard for entry in read_ledger(out)) == [0, 2, 3, 4]
    begun.unlink()
    assert extract(manifest, out=out, writer="0/2", takeover=True, **SETTINGS).complete
    assert files(out) == files(tmp_path / "whole.zarr")


def test_two_with_the_same_number_lose_nothing_and_say_so(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second runs to its end before the first has ended its first shard."""
    original = Shards._copy
    arguments = ["extract", str(manifest), "--out", str(tmp_path / "c.zarr"), "--encoder", "logmel"]
    arguments += ["--clip-seconds", "1", "--shard-clips", "4", "--batch-size", "2", "--writer"]

    def meanwhile(shards: Shards, *rest: Any) -> None:
        original(shards, *rest)
        monkeypatch.setattr(Shards, "_copy", original)
        second = CliRunner().invoke(featcache, [*arguments, "0/2"])
        assert "another writer" not in second.output

    monkeypatch.setattr(Shards, "_copy", meanwhile)
    first = CliRunner().invoke(featcache, [*arguments, "0/2"])
    assert "another writer finished shard 0 meanwhile: its tokens stay" in first.output
    CliRunner().invoke(featcache, [*arguments, "1/2"])
    extract(manifest, out=tmp_path / "whole.zarr", **SETTINGS)
    assert files(tmp_path / "c.zarr") == files(tmp_path / "whole.zarr")


def test_copies_of_another_cache_are_shared_out_too(manifest: Path, tmp_path: Path) -> None:
    settings = SETTINGS | {"store_dtype": "int8"}
    extract(manifest, out=tmp_path / "old.zarr", **settings)
    reuse = [tmp_path / "old.zarr"]
    done = [
        extract(manifest, out=tmp_path / "new.zarr", writer=f"{rank}/2", reuse=reuse, **settings)
        for rank in (1, 0)
    ]
    assert (sum(own.reused for own in done), sum(own.encoded for own in done)) == (15, 0)
    old, new = (TokenCache.open(tmp_path / name) for name in ("old.zarr", "new.zarr"))
    rows = new.find(old.ids)
    assert torch.equal(new.tokens(rows), old.tokens(range(15)))


def test_a_dtype_that_would_flatten_channels_is_refused_with_another(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.encoders.logmel import LogMel

    original = LogMel.forward

    def far_away(self: LogMel, features: torch.Tensor, layers: Any) -> Any:
        encoded = original(self, features, layers)
        return encoded._replace(tokens={layer: own * 10 + 30_000 for layer, own in encoded.tokens.items()})

    monkeypatch.setattr(LogMel, "forward", far_away)
    arguments = ["extract", str(make_manifest(4)), "--out", str(tmp_path / "c.zarr"), "--store-dtype"]
    result = CliRunner().invoke(featcache, [*arguments, "bfloat16", "--clip-seconds", "1"])
    assert result.exit_code == 2
    assert "bfloat16 would flatten" in result.output
    assert "store it as" in result.output
    assert "--store-dtype" in result.output
    assert len(TokenCache.open(tmp_path / "c.zarr")) == 0


def test_each_rank_of_torchrun_takes_its_share(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        done = extract(manifest, out=tmp_path / "many.zarr", **SETTINGS)
        assert done.writer == f"{rank}/2"
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    extract(manifest, out=tmp_path / "whole.zarr", **SETTINGS)
    assert files(tmp_path / "many.zarr") == files(tmp_path / "whole.zarr")


@pytest.mark.parametrize("writer", ["2/2", "1", "a/b", "-1/2", "1/0", "1/2/3", "slurm"])
def test_a_writer_that_is_none_is_one_line(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "c.zarr"
    result = CliRunner().invoke(
        featcache, ["extract", str(make_manifest(2)), "--out", str(out), "--writer", writer]
    )
    assert result.exit_code == 2
    assert "writer" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("variables", "writer", "share"),
    [
        ({}, None, Share()),
        ({}, "3/8", Share(rank=3, count=8)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, None, Share(rank=5, count=8, local=1)),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
            None,
            Share(rank=5, count=8, local=1, beside=4),
        ),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, None, Share()),
        (
            {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"},
            "slurm",
            Share(rank=2, count=4, local=0),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "5", "SLURM_PROCID": "0", "SLURM_NTASKS": "1",
            },
            "slurm",
            Share(rank=3, count=5),
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "3",
                "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_LOCALID": "1",
            },
            "slurm",
            Share(rank=5, count=6, local=1),
        ),
    ],
)  # fmt: skip
def test_shares_follow_from_what_launchers_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], writer: str | None, share: Share
) -> None:
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert share_of(writer) == share


@pytest.mark.parametrize(
    ("variables", "writer", "message"),
    [
        ({"RANK": "5", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, None, "process 5 of 4, counted from 0"),
        ({"RANK": "0", "WORLD_SIZE": "0", "LOCAL_RANK": "0"}, None, "process 0 of 0"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_STEP": "1",
            },
            "slurm",
            "an array of 3 tasks from 0 to 7 leaves numbers out",
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_STEP": "0",
            },
            "slurm",
            "leaves numbers out",
        ),
    ],
)  # fmt: skip
def test_numbers_that_would_leave_shards_to_nobody_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], writer: str | None, message: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        share_of(writer)


def test_a_launchers_variable_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match="the launcher's variable RANK is None, not a number"):
        share_of(None)


def test_a_shard_that_a_repair_took_out_is_written_again_with_its_bytes(
    manifest: Path, tmp_path: Path
) -> None:
    path, settings = tmp_path / "c.zarr", SETTINGS | {"store_dtype": "int8"}
    extract(manifest, out=path, **settings)
    before = files(path)
    (path / "tokens/0/c.2.0.0").write_bytes(b"damaged")
    assert repair_cache(path, verify_cache(path)) == [2]
    done = [extract(manifest, out=path, writer=f"{rank}/2", **settings) for rank in (1, 0)]
    assert [own.encoded for own in done] == [0, 3]
    assert files(path) == before
