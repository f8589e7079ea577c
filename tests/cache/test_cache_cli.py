"""``featcache cache``: what is printed, what a script reads, and the exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from featcache.cache import CacheWriter, TokenCache
from featcache.cli.main import featcache

MakeCache = Callable[..., TokenCache]


def run(*arguments: object, answer: str = "") -> Result:
    result = CliRunner().invoke(featcache, ["cache", *map(str, arguments)], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_ls_names_the_caches_of_a_directory(make_cache: MakeCache, tmp_path: Path, clips: Any) -> None:
    make_cache(10)
    make_cache(3, name="b.zarr", dtype="int8")
    with CacheWriter.create_or_open(tmp_path / "b.zarr", clips.layout(dtype="int8")) as writer:
        writer.annotate(clips_expected=12)
        writer.abort()
    (tmp_path / "other").mkdir()
    lines = run("ls", tmp_path).output.splitlines()
    assert [line.split()[0] for line in lines] == ["a.zarr", "b.zarr"]
    assert "10 clips" in lines[0]
    assert lines[0].endswith("complete")
    assert lines[1].endswith("25 %")
    first, second = json.loads(run("ls", tmp_path, "--json").output)
    assert first["complete"]
    assert (second["name"], second["encoder"], second["dtype"], second["clips"]) == (
        "b.zarr",
        "fake",
        "int8",
        3,
    )
    assert run("ls", tmp_path / "other").output == f"no token caches in {tmp_path / 'other'}\n"


def test_ls_of_a_directory_that_is_not_there(tmp_path: Path) -> None:
    result = run("ls", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert f"no directory {tmp_path / 'nowhere'}" in result.output


def test_info_shows_fingerprint_arrays_and_failed_clips(make_cache: MakeCache) -> None:
    path = make_cache(10).path
    (path / "failed.jsonl").write_text('{"id": "broken", "reason": "not audio"}\n')
    output = run("info", path).output
    assert "10 clips in 3 shards, complete" in output
    assert "digest: a1" in output
    assert "tokens/12" in output
    assert "(10, 6, 8)" in output
    assert "1 clips failed" in output
    assert "broken: not audio" in output
    record = json.loads(run("info", path, "--json").output)
    assert record["failed"] == {"broken": "not audio"}
    assert record["arrays"]["tokens/3"] == {"dtype": "float16", "shape": [10, 6, 8]}
    assert record["bytes"] == sum(file.stat().st_size for file in path.glob("**/c.*")) + sum(
        file.stat().st_size for file in path.glob("ids/*")
    )


def test_info_of_nothing_says_how_to_make_a_cache(tmp_path: Path) -> None:
    result = run("info", tmp_path / "a.zarr")
    assert result.exit_code == 2
    assert "create one with 'featcache extract'" in result.output


def test_verify_names_the_shard_and_repair_takes_it_out(make_cache: MakeCache) -> None:
    path = make_cache(10).path
    assert run("verify", path).output.endswith(
        "every length and checksum is the ledger's, and the metadata and records can be read and agree\n"
    )
    file = path / "tokens/12/c.1.0.0"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    result = run("verify", path)
    assert result.exit_code == 1
    assert "shard 1: tokens/12/c.1.0.0 has the checksum" in result.output
    assert "--repair', then the extract command again" in result.output
    record = json.loads(run("verify", path, "--json").output)
    assert [damage["shard"] for damage in record["damages"]] == [1]
    result = run("verify", path, "--repair")
    assert result.exit_code == 0
    assert "took out shard 1; run the extract command again" in result.output
    assert len(TokenCache.open(path)) == 6


def test_rm_asks_first(make_cache: MakeCache, clips: Any) -> None:
    path = make_cache(10).path
    assert run("rm", path, answer="n\n").exit_code == 1
    assert path.exists()
    with CacheWriter.create_or_open(path, clips.layout()):
        assert "is being written by" in run("rm", path, "--yes").output
    assert "removed" in run("rm", path, answer="y\n").output
    assert not path.exists()
    assert run("rm", path.parent, "--yes").exit_code == 2


def test_convert_and_diff(make_cache: MakeCache, tmp_path: Path) -> None:
    path = make_cache(10).path
    target = tmp_path / "b.zarr"
    output = run("convert", path, target, "--dtype", "int8", "--layers", "12", "--shard-clips", "4").output
    assert output.endswith("b.zarr: 10 clips, int8, layers 12\n")
    result = run("diff", path, target)
    assert result.exit_code == 1
    assert result.output == 'layers: [3, 12] | [12]\nstore.dtype: "float16" | "int8"\n'
    record = json.loads(run("diff", path, target, "--json").output)
    assert record[0] == {"field": "layers", "first": [3, 12], "second": [12]}
    same = run("diff", path, path)
    assert same.exit_code == 0
    assert same.output == "no difference: the tokens of both may be used as one\n"


@pytest.mark.parametrize("command", ["ls", "info", "verify", "rm", "convert", "diff", "audit"])
def test_each_command_has_help_with_an_example(command: str) -> None:
    assert f"featcache cache {command}" in run(command, "--help").output


def test_audit_compares_heads_at_full_and_stored_precision(
    make_tokens: Callable[..., tuple[Path, Path]],
) -> None:
    path, manifest = make_tokens(160, dtype="float32", dim=16)
    options = ["--manifest", manifest, "--dtype", "float32", "--dtype", "int4", "--epochs", 8, "--seeds", 1]
    rows = [json.loads(line) for line in run("audit", path, *options, "--json").stdout.splitlines()]
    assert [(row["head"], row["dtype"]) for row in rows] == [
        (head, dtype) for dtype in ("float32", "int4") for head in ("linear-mean", "mhca", "protobin")
    ]
    for row in rows[:3]:  # the same tokens: the same scores
        assert (row["difference"], row["low"], row["high"], row["error"]) == (0, 0, 0, 0)
        assert row["full"] > 0.5
        assert (row["channel_error"], row["worst_channel_error"]) == (0, 0)
    for row in rows[3:]:
        assert row["bytes_per_token"] == 12
        assert 0.05 < row["error"] < 0.2
        assert 0.05 < row["channel_error"] < row["worst_channel_error"] < 0.5
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["low"] < row["high"]
    table = run("audit", path, *options, "--head", "linear-mean").stdout.splitlines()
    assert table[0].startswith("| head | dtype |")
    assert len(table) == 4


def test_a_quantised_cache_cannot_be_audited(make_tokens: Callable[..., tuple[Path, Path]]) -> None:
    path, manifest = make_tokens(40, dtype="int8")
    result = run("audit", path, "--manifest", manifest)
    assert result.exit_code == 2
    assert "is stored as int8: what that lost cannot be measured from it; audit the cache" in result.output
