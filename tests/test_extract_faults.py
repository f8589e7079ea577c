"""What goes wrong on the way costs the clips it concerns and no others, and each of those is named."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from featcache import spans
from featcache.audio import decode_process
from featcache.audio.decode_ahead import decode_ahead
from featcache.audio.load import load_clip
from featcache.cache import TokenCache
from featcache.cli.advice import advice
from featcache.cli.main import featcache
from featcache.errors import AudioError, FeatcacheError
from featcache.extraction.extract import extract
from featcache.extraction.runner import Runner
from featcache.extraction.stages import Stages
from featcache.manifest import Clip

Make = Callable[..., Path]
LOGMEL = ["--encoder", "logmel", "--clip-seconds", "1", "--shard-clips", "8"]
SETTINGS: dict[str, Any] = {"encoder": "logmel", "clip_seconds": 1.0, "shard_clips": 8}
# What a codec may do: these stand for it in the processes that decode.
DECODER = """
    import os, signal, time
    from pathlib import Path
    from featcache.audio.mixup import decode_clip

    def decode(clip, partners, **settings):
        name = clip.path.stem
        if name == "hangs":
            time.sleep(60)
        if name == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        once = clip.path.with_suffix(".tried")
        if name == "raises":
            raise MemoryError("no room for 8 exabytes")
        if name == "dies_once" and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_clip(clip, partners, **settings)
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, [str(argument) for argument in arguments])


def stored(cache: Path) -> dict[str, bytes]:
    found = TokenCache.open(cache)
    return {name: found.tokens([row])[0].numpy().tobytes() for row, name in enumerate(found.ids)}


@pytest.fixture
def fragile_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Decoding processes in which some files hang and some are fatal, by their names."""
    (tmp_path / "fragile_decoder.py").write_text(textwrap.dedent(DECODER))
    monkeypatch.syspath_prepend(str(tmp_path))
    import fragile_decoder  # type: ignore[import-not-found]

    monkeypatch.setattr(decode_process.DecodeProcesses.__init__, "__defaults__", (fragile_decoder.decode,))
    yield
    del sys.modules["fragile_decoder"]


@pytest.mark.slow
@pytest.mark.usefixtures("fragile_decoder")
def test_a_file_that_hangs_or_kills_its_decoder_is_named_and_all_others_are_stored(
    make_manifest: Make, make_audio: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(5)
    extract(manifest, out=tmp_path / "whole.zarr", **SETTINGS)
    for seed, name in enumerate(("hangs", "dies", "dies_once", "raises"), start=20):
        make_audio(f"audio/{name}.wav", seed=seed)
    head, *rows = manifest.read_text().splitlines()
    names = ("dies", "dies_once", "hangs", "raises")
    dies, once, hangs, raises = (f"audio/{name}.wav,hum,train" for name in names)
    manifest.write_text("\n".join([head, raises, *rows[:2], dies, once, *rows[2:], hangs]) + "\n")
    out = tmp_path / "c.zarr"
    result = run("extract", manifest, "--out", out, *LOGMEL, "--decode-timeout", 2, "--workers", 1)
    assert result.exit_code == 2, result.output
    assert "6 encoded, 3 failed" in result.stdout
    told = "audio/raises.wav: the decoder failed (MemoryError: no room for 8 exabytes)"
    assert (told in result.stderr, "Traceback" in result.stderr) == (True, False)
    assert "audio/hangs.wav: decoding took longer than 2 s" in result.stderr
    assert "audio/dies.wav: decoding ended its process twice (exit code -11)" in result.stderr
    found = stored(out)
    assert "audio/dies_once.wav" in found  # somebody else may have killed the process
    assert found.items() >= stored(tmp_path / "whole.zarr").items()


@pytest.mark.slow
def test_processes_decode_what_threads_do_and_leave_none_behind(make_audio: Make, tmp_path: Path) -> None:
    good = [Clip(id=str(seed), path=make_audio(f"{seed}.wav", seed=seed, rate=8000)) for seed in range(3)]
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    clips = [*good, Clip(id="bad", path=tmp_path / "bad.wav")]
    settings: dict[str, Any] = {"sample_rate": 16_000, "max_seconds": 0.5, "workers": 1, "ahead": 4}
    decoded = list(decode_ahead(clips, **settings, timeout=60.0))
    for (clip, apart), (_, beside) in zip(decoded, decode_ahead(clips, **settings), strict=True):
        if clip.id == "bad":
            assert (str(apart), isinstance(apart, AudioError)) == (str(beside), True)
        else:
            assert not isinstance(apart, AudioError)
            assert not isinstance(beside, AudioError)
            assert torch.equal(apart.waveform, beside.waveform)
            assert apart.cut_seconds == beside.cut_seconds == 0.5
    children = subprocess.run(
        ["ps", "-o", "args=", "--ppid", str(os.getpid())], text=True, capture_output=True
    )
    assert "decode_process" not in children.stdout


def test_one_corrupt_file_in_a_hundred_costs_itself(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(100, seconds=0.2)
    whole = (tmp_path / "audio/41.wav").read_bytes()
    (tmp_path / "audio/41.wav").write_bytes(whole[: len(whole) // 2])
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL, "--skip-failed")
    assert (result.exit_code, "99 encoded, 1 failed" in result.stdout) == (0, True), result.output
    assert "failed: audio/41.wav" in result.stderr


@pytest.mark.parametrize("method", ["encode", "features"])
def test_a_device_without_memory_gets_smaller_batches_and_gives_the_same_tokens(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    manifest = make_manifest(13)
    extract(manifest, out=tmp_path / "whole.zarr", batch_size=8, **SETTINGS)
    original, sizes = getattr(Runner, method), []

    def limited(self: Runner, given: Any) -> Any:
        sizes.append(len(given))
        if len(given) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, given)

    monkeypatch.setattr(Runner, method, limited)
    extract(manifest, out=tmp_path / "c.zarr", batch_size=8, **SETTINGS)
    assert sizes[:3] == [8, 4, 2]  # and not tried again with more
    assert max(sizes[3:]) == 2
    said = [record.message for record in caplog.records]
    assert said == ["out of memory on cpu: batches of 4 now", "out of memory on cpu: batches of 2 now"]
    assert stored(tmp_path / "c.zarr") == stored(tmp_path / "whole.zarr")


def test_a_clip_that_no_memory_is_enough_for_ends_the_run_in_a_line(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Runner, given: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Runner, "encode", never)
    result = run("extract", make_manifest(4), "--out", tmp_path / "c.zarr", *LOGMEL)
    assert result.exit_code == FeatcacheError.exit_code
    assert result.stderr.splitlines()[-1].startswith(
        "Error: cpu has no memory for a single clip; take shorter"
    )
    monkeypatch.setattr(Runner, "encode", lambda self, given: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        extract(make_manifest(4), out=tmp_path / "c.zarr", **SETTINGS)


def test_the_last_line_says_what_bounded_the_run_and_a_profile_where_its_time_went(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    def slow(*arguments: Any, **rest: Any) -> Any:
        time.sleep(0.02)
        return load_clip(*arguments, **rest)

    from featcache.audio import mixup

    monkeypatch.setattr(mixup, "load_clip", slow)
    trace = tmp_path / "traces/run.json"
    command = ["extract", make_manifest(12), "--out", tmp_path / "c.zarr", *LOGMEL, "--workers", 1]
    result = run(*command, "--profile", trace)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1].startswith("bounded by ")
    assert [line[:8].strip() for line in lines[-5:-1]] == ["decode", "encode", "", "write"]
    events = json.loads(trace.read_text())["traceEvents"]
    names = {event["name"] for event in events}
    assert names >= {"decode", "wait for decoding", "frontend", "encode", "store", "write", "make durable"}
    decode = [event for event in events if event["name"] == "decode"]
    assert len(decode) == 12
    assert all(event["dur"] > 19_000 and event["ph"] == "X" for event in decode)  # microseconds
    assert {event["tid"] for event in decode} == {"decode_0"}
    again = run(*command)
    assert "bounded by" not in again.stdout  # nothing was encoded


def test_an_exception_of_a_decoder_counts_against_its_clip_alone(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.audio import mixup

    def load(path: Path, **settings: Any) -> Any:
        if path.name == "2.wav":
            raise RuntimeError("inflate: invalid distance too far back")
        return load_clip(path, **settings)

    monkeypatch.setattr(mixup, "load_clip", load)
    result = run("extract", make_manifest(5), "--out", tmp_path / "c.zarr", *LOGMEL)
    assert (result.exit_code, "4 encoded, 1 failed" in result.stdout) == (2, True), result.output
    assert "2.wav: the decoder failed (RuntimeError: inflate: invalid distance too far back)" in result.stderr


def test_copies_of_a_clip_that_fails_count_as_failed_and_name_it(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(6)
    for number in (2, 4, 5):
        (tmp_path / f"audio/{number}.wav").write_bytes(b"no audio")
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL)
    assert "6 clips (3 encoded, 3 failed)" in result.stdout
    lines = (tmp_path / "c.zarr/failed.jsonl").read_text().splitlines()
    listed = {own["id"]: own["reason"] for own in map(json.loads, lines)}
    assert listed["audio/4.wav"] == f"holds the same as audio/2.wav: {listed['audio/2.wav']}"
    again = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL)
    assert "6 clips (0 encoded, 3 already there (3 checked again), 3 failed)" in again.stdout


def test_a_trace_that_is_full_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spans, "MOST_EVENTS", 3)
    own = spans.Spans(keep=True)
    for _ in range(5):
        own.add("encode", 0.0, 1.0)
    own.write(tmp_path / "trace.json")
    assert len(json.loads((tmp_path / "trace.json").read_text())["traceEvents"]) == 3
    assert own.seconds["encode"] == 5.0
    assert "has the first 3 events; 2 later ones are in the seconds alone" in caplog.text


def stages(**seconds: float) -> Stages:
    given = {name.replace("_", " "): value for name, value in seconds.items()}
    return Stages(
        seconds=given, wall=10.0, workers=2, cores=8, device="cuda", compute_dtype="float32",
        store_dtype="float16",
    )  # fmt: skip


def test_each_bound_has_its_advice() -> None:
    decode = stages(wait_for_decoding=6.0, encode=3.0)
    assert (decode.bound, advice(decode)) == ("decode", "--workers 8 (now 2)")
    write = stages(store=7.0, wait_for_disk=6.0, encode=3.0)
    assert (write.bound, write.main["store"]) == ("write", 1.0)
    assert advice(write).startswith("--store-dtype int8 instead of float16")
    assert advice(stages(store=7.0, encode=3.0)).startswith("several processes")
    assert advice(stages(frontend=2.0, encode=3.0, store=4.0)).startswith("--dtype bf16")


def test_a_profile_that_cannot_be_written_is_refused_first(make_manifest: Make, tmp_path: Path) -> None:
    result = run("extract", make_manifest(4), "--out", tmp_path / "c.zarr", *LOGMEL, "--profile", tmp_path)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
    assert "is a folder" in result.stderr
    refused = run("extract", tmp_path / "clips.csv", "--out", tmp_path / "c.zarr", "--decode-timeout", "0")
    assert (refused.exit_code, "decode-timeout" in refused.stderr) == (2, True), refused.output
    assert not (tmp_path / "c.zarr").exists()
