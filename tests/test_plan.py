"""What an extraction will cost is known before it starts, and what cannot fit is refused."""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from featcache.cache import CacheLayout, TokenCache
from featcache.cli.main import featcache
from featcache.cli.plan import line, lines
from featcache.errors import InputError
from featcache.extraction import extract as extraction
from featcache.extraction.extract import extract
from featcache.extraction.plan import plan_sizes, with_rates
from featcache.extraction.rates import Rates

Make = Callable[..., Path]
LOGMEL = ["--encoder", "logmel", "--clip-seconds", "1", "--shard-clips", "20"]
SETTINGS: dict[str, Any] = {"encoder": "logmel", "clip_seconds": 1.0, "shard_clips": 20}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def layout() -> CacheLayout:
    return CacheLayout(fingerprint={}, layers=(6, 12), num_tokens=512, dim=768, grid=(8, 64), has_cls=True)


@pytest.fixture(autouse=True)
def _short_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    from featcache.extraction import rates

    monkeypatch.setattr(rates, "WRITE_SECONDS", 0.02)


def rates(**changed: float) -> Rates:
    given = {"decode": 100.0, "encode": 50.0, "write": 400.0, "read": 1e9, "audio_seconds": 10.0}
    return Rates(**{**given, **changed}, clips=16)


def test_a_plan_encodes_nothing_and_counts_what_a_run_then_writes(
    make_manifest: Make, tmp_path: Path
) -> None:
    manifest, out = make_manifest(20), tmp_path / "c.zarr"
    result = run("extract", manifest, "--out", out, "--plan", "--json", *LOGMEL)
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert (plan["clips"], plan["present"], plan["rates"]["clips"]) == (20, 0, 16)
    assert plan["audio_seconds"] == pytest.approx(20, rel=1e-3)
    assert plan["tokens"] == 20 * 64  # 128 frames, 16 x 16 patches of 128 mels
    assert [file.name for file in tmp_path.iterdir() if "plan" in file.name or file == out] == []
    done = extract(manifest, out=out, **SETTINGS)
    stored = sum(
        file.stat().st_size for file in out.rglob("c.*") if "statistics" not in file.parts and file.is_file()
    )
    assert done.plan is not None
    assert (done.plan.num_bytes, done.plan.rates) == (plan["num_bytes"], None)  # too few to measure first
    assert stored == pytest.approx(plan["num_bytes"], rel=0.01)  # and the index of each shard
    again = run("extract", make_manifest(24), "--out", out, "--plan", *LOGMEL)
    assert "4 to encode, 20 need not be" in again.stdout
    assert "clips/s, each alone, on 4 clips" in again.stdout
    assert len(TokenCache.open(out)) == 20


def test_a_plan_of_a_compiled_encoder_measures_full_batches_of_it(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def compiled(forward: Callable[..., Any], dynamic: bool) -> Callable[..., Any]:
        def slow_at_first(features: Tensor) -> Any:
            time.sleep(0 if sizes else 1.6)
            sizes.append(len(features))
            return forward(features)

        return slow_at_first

    monkeypatch.setattr(torch, "compile", compiled)
    words = ["extract", make_manifest(20), "--out", tmp_path / "c.zarr", "--plan", "--compile", *LOGMEL]
    result = run(*words, "--batch-size", 40)
    # Once to compile it, once with one clip, once to measure it: 16 clips again and again.
    assert sizes == [40, 40, 40]
    assert (
        "on 16 clips (compiled: full batches; compiling took 2 s, once, which is left out)" in result.stdout
    )
    found = re.search(r"encode ([\d,.]+),", result.stdout)
    assert found
    assert float(found[1].replace(",", "")) > 40  # with the first call it would be 25 at most
    assert not (tmp_path / "c.zarr").exists()
    assert "compil" not in run(*(word for word in words if word != "--compile")).stdout


def test_what_happens_once_is_in_no_rate(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting the processes that decode, and compiling what stores a clip."""
    from featcache.audio.decode_process import DecodeProcesses
    from featcache.audio.mixup import decode_clip
    from featcache.extraction import rates

    written, slow = rates._written, [4.0]

    def compiling(*given: Any) -> int:
        time.sleep(slow.pop() if slow else 0.0)
        return written(*given)

    monkeypatch.setattr(rates, "_written", compiling)
    monkeypatch.setattr(DecodeProcesses, "start", lambda self: time.sleep(slow[0]))
    monkeypatch.setattr(DecodeProcesses, "decode", lambda self, *given, **own: decode_clip(*given, **own))
    words = ["extract", make_manifest(16), "--out", tmp_path / "c.zarr", "--plan", "--json", *LOGMEL]
    found = json.loads(run(*words, "--decode-timeout", 9).stdout)["rates"]
    assert found["decode"] > 16 / 4.0 < found["write"]  # counted, it would be less


def test_every_run_says_its_plan_in_a_line(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = make_manifest(6), tmp_path / "c.zarr"
    monkeypatch.setattr(extraction, "MEASURED_FROM", 6)
    said = run("extract", manifest, "--out", out, *LOGMEL).stdout.splitlines()[0]
    assert re.match(r"plan: 6 clips to encode \(\d+ s of audio\), 384 tokens x 1 layer, 2", said)
    assert "the slowest stage" in said
    assert run("extract", manifest, "--out", out, *LOGMEL).stdout.startswith("plan: nothing to encode\n")


def test_clips_that_do_not_decode_leave_no_rates(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(2)
    for index in range(2):
        (tmp_path / f"audio/{index}.wav").write_bytes(b"no audio")
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", "--plan", *LOGMEL)
    assert (result.exit_code, "not measured: no clip to decode" in result.stdout) == (0, True), result.output


def test_what_cannot_fit_is_refused_before_anything_is_written(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.extraction import plan

    manifest, out = make_manifest(20), tmp_path / "c.zarr"
    needed = extract(manifest, out=out, plan_only=True, **SETTINGS).plan
    assert needed is not None
    monkeypatch.setattr(plan, "free_bytes", lambda path: needed.num_bytes - 1)
    for more in ([], ["--plan"]):
        result = run("extract", manifest, "--out", out, *LOGMEL, *more)
        assert result.exit_code == 2
        assert "20 clips take 676.2 kB as float16" in result.stderr
        assert "store it as int8, make room, or choose another place (--out, --store-dtype)" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not out.exists()
    extract(manifest, out=out, store_dtype="int8", **SETTINGS)
    monkeypatch.setattr(plan, "free_bytes", lambda path: 0)
    with pytest.raises(InputError, match=r"0\.0 kB free; make room"):
        extract(manifest, out=tmp_path / "d.zarr", **SETTINGS)
    extract(manifest, out=tmp_path / "e.zarr", codec="zstd", **SETTINGS)  # its size is not known before


def test_several_writers_are_not_refused_for_what_they_have_half_written(
    layout: CacheLayout, tmp_path: Path
) -> None:
    one = plan_sizes(tmp_path, layout, 10**9, 0)
    assert not one.fits
    short = layout.clip_bytes * 1000 - 100_000
    assert not replace(plan_sizes(tmp_path, layout, 1000, 0, writers=4), free=short).fits
    half = tmp_path / layout.tokens(12).chunk_file(3)
    half.parent.mkdir(parents=True)
    half.with_name(f"{half.name}.vm-12-0123abcd.partial").write_bytes(bytes(120_000))
    assert replace(plan_sizes(tmp_path, layout, 1000, 0, writers=4), free=short).fits
    assert not replace(plan_sizes(tmp_path, layout, 1000, 0), free=short).fits


def test_bytes_are_those_of_each_dtype_and_layer(layout: CacheLayout, tmp_path: Path) -> None:
    plan = plan_sizes(tmp_path, layout, 10, 3)
    beside = 2 * 768 * 4 + 4 + 16  # cls and mean of a layer; valid tokens, key
    assert plan.layer_bytes["float16"] == 10 * (512 * 768 * 2 + beside)
    assert plan.layer_bytes["int8"] == 10 * (512 * 768 + 512 * 4 + beside)
    assert plan.layer_bytes["int4"] == 10 * (512 * 384 + 512 * 4 + beside)
    assert plan.num_bytes == 10 * (2 * (512 * 768 * 2 + 2 * 768 * 4) + 20)


def test_hours_follow_from_the_stage_that_binds(layout: CacheLayout, tmp_path: Path) -> None:
    plan = plan_sizes(tmp_path, layout, 36_000, 0)
    apart, together = (with_rates(plan, rates(), shared=shared) for shared in (False, True))
    assert (apart.binds, apart.hours) == ("encode", pytest.approx(36_000 / 50 / 3600))
    assert together.hours == pytest.approx(36_000 * (1 / 100 + 1 / 50) / 3600)
    slow = with_rates(plan, rates(write=10), shared=True)
    assert (slow.binds, slow.hours) == ("write", pytest.approx(1.0))
    assert with_rates(plan, rates(decode=20), shared=True).binds == "decode"
    half = with_rates(plan_sizes(tmp_path, layout, 36_000, 0, writers=2), rates(), shared=False)
    assert half.hours == pytest.approx(0.1)


def test_the_cache_pays_when_reading_is_faster_than_encoding(layout: CacheLayout, tmp_path: Path) -> None:
    plan = plan_sizes(tmp_path, layout, 36_000, 0)
    read_seconds = plan.num_bytes / 1e9
    found = with_rates(plan, rates(), shared=False)
    assert found.epoch_minutes == pytest.approx(read_seconds / 60)
    assert found.break_even_epochs == 2  # 720 s once, against 720 s - 57 s saved in each epoch
    assert "after 2 epochs of training" in "\n".join(lines(found))
    never = with_rates(plan, rates(encode=1e6, decode=1e6), shared=False)
    assert never.break_even_epochs is None
    assert "never" in "\n".join(lines(never))
    rest = "12.0 minutes (decode 100, encode 50, write 400 clips/s): the encoder is the slowest stage"
    assert f"{rest}; an epoch of probing reads for 57.1 s, and the cache pays after 2 epochs" in line(found)


def test_doctor_is_one_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featcache.weights import download

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    kept = tmp_path / "weights.pt"
    monkeypatch.setattr(download, "_kept_at", lambda url: kept)
    result = run("doctor", tmp_path / "caches")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) <= 24
    assert "hf_secret" not in result.stdout
    for part in ("torch ", "cores", "match", "GB free", "writes", "ulimit", "a token", "none of those"):
        assert part in result.stdout, part
    assert list(tmp_path.iterdir()) == []
    kept.touch()
    facts = json.loads(run("doctor", tmp_path, "--json").stdout)
    assert set(facts["weights"]) == {"dasheng", "dasheng-0.6b", "dasheng-1.2b", "passt"}
    assert facts["devices"]["cores"] == len(os.sched_getaffinity(0))
    assert facts["disk"]["write_rate"] > 1e5
    assert facts["hub"]["token"] is True
    (tmp_path / "file").touch()


def test_doctor_refuses_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    result = run("doctor", "/proc")
    assert (result.exit_code, "/proc cannot be written to" in result.stderr) == (2, True), result.output
    assert len(result.stderr.splitlines()) == 1


def test_the_innermost_mount_says_whether_a_disk_is_near(tmp_path: Path) -> None:
    from featcache.machine.disk import FileSystem, file_system

    mounts = tmp_path / "mounts"
    (tmp_path / "far away").mkdir()
    mounts.write_text(
        f"/dev/sda / ext4 rw 0 0\nhost:/x {tmp_path}/far\\040away nfs4 rw 0 0\nproc /proc proc rw 0 0\n"
    )
    assert file_system(tmp_path / "near/c.zarr", mounts) == FileSystem("ext4", False)
    assert file_system(tmp_path / "far away/c.zarr", mounts) == FileSystem("nfs4", True)
    assert file_system(tmp_path, tmp_path / "none") == FileSystem("unknown", False)
