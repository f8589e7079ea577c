"""``featcache extract`` as a person meets it: one line on bad input, a summary, a resumable stop."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from featcache.cache import TokenCache
from featcache.cli.main import featcache

Make = Callable[..., Path]
LOGMEL = ["--encoder", "logmel", "--clip-seconds", "1", "--shard-clips", "4"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, [str(argument) for argument in arguments])


def refused(result: Result, *parts: str) -> None:
    """Exit code 2, one line on stderr, no traceback, and every part said."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def test_the_summary_says_what_was_done_and_what_comes_next(make_manifest: Make, tmp_path: Path) -> None:
    result = run("extract", make_manifest(6), "--out", tmp_path / "c.zarr", *LOGMEL)
    assert result.exit_code == 0, result.output
    assert "6 clips (6 encoded)" in result.stdout
    assert "clips/s" in result.stdout
    assert f"next: featcache probe {tmp_path / 'c.zarr'}" in result.stdout
    assert result.stderr == ""  # no progress bar where nobody watches


def test_json_is_one_object(make_manifest: Make, tmp_path: Path) -> None:
    result = run("extract", make_manifest(6), "--out", tmp_path / "c.zarr", "--json", *LOGMEL)
    summary = json.loads(result.stdout)
    assert (summary["encoded"], summary["failed"]) == (6, {})


def test_class_folders_are_extracted_when_asked_for(make_audio: Make, tmp_path: Path) -> None:
    for index in range(4):
        make_audio(f"data/{'ab'[index % 2]}/{index}.wav", seed=index)
    result = run("extract", "--from-folders", tmp_path / "data", "--out", tmp_path / "c.zarr", *LOGMEL)
    assert result.exit_code == 0, result.output
    assert len(TokenCache.open(tmp_path / "c.zarr")) == 4


def test_columns_of_other_names_are_said_and_known_to_the_probe(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(16)
    manifest.write_text(manifest.read_text().replace("path,labels", "filename;category").replace(",", ";"))
    out = tmp_path / "c.zarr"
    result = run("extract", manifest, "--out", out, *LOGMEL)
    assert (result.exit_code, len(result.stderr.splitlines())) == (0, 1), result.output
    assert "column 'filename' is taken for path; column 'category' is taken for labels" in result.stderr
    manifest.write_text(manifest.read_text().replace("filename;category", "clip;species"))
    refused(run("extract", manifest, "--out", out, *LOGMEL), "(--path-column, --label-column)")
    named = ("--path-column", "clip", "--label-column", "species")
    assert "16 already there" in run("extract", manifest, "--out", out, *named, *LOGMEL).stdout
    result = run("probe", out, "--head", "linear", "--epochs", 1, "--out", tmp_path / "results")
    assert result.exit_code == 0, result.output


def test_the_summary_says_by_how_much_clips_are_too_long(make_manifest: Make, tmp_path: Path) -> None:
    result = run("extract", make_manifest(3, seconds=1.25), "--out", tmp_path / "c.zarr", *LOGMEL)
    assert "3 clips are longer than the encoder takes, by 0.25 s (median; at most 0.25 s)" in result.stdout
    result = run("extract", make_manifest(3, seconds=1.001), "--out", tmp_path / "d.zarr", *LOGMEL)
    assert "longer" not in result.stdout


def test_truncated_clips_are_taken_when_asked_for(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(4)
    path = tmp_path / "audio/1.wav"
    path.write_bytes(path.read_bytes()[:-2000])
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL)
    assert (result.exit_code, "was cut off" in result.stderr) == (2, True), result.output
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", "--accept-truncated", "--rehash", *LOGMEL)
    assert (result.exit_code, "1 encoded, 3 already there" in result.stdout) == (0, True), result.output


def test_a_cache_without_clips_is_not_sent_to_the_probe(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(1)
    (tmp_path / "audio/0.wav").write_bytes(b"")
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL)
    assert (result.exit_code, "0 encoded, 1 failed" in result.stdout) == (2, True)
    assert "next:" not in result.stdout


def test_damaged_clips_end_in_2_with_everything_else_stored(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(6)
    (tmp_path / "audio/5.wav").write_bytes(b"")
    result = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL)
    assert result.exit_code == 2
    assert "5 encoded, 1 failed" in result.stdout
    assert "failed: audio/5.wav" in result.stderr
    assert "failed.jsonl" in result.stderr
    again = run("extract", manifest, "--out", tmp_path / "c.zarr", "--skip-failed", *LOGMEL)
    assert again.exit_code == 0
    assert len(TokenCache.open(tmp_path / "c.zarr")) == 5


def test_bad_input_is_one_line_and_writes_nothing(make_manifest: Make, tmp_path: Path) -> None:
    manifest, out = make_manifest(4), tmp_path / "c.zarr"
    refused(run("extract", tmp_path / "none.csv", "--out", out), "no manifest at", "path,labels")
    refused(run("extract", tmp_path / "audio", "--out", out), "--from-folders")
    refused(
        run("extract", manifest, "--out", out, "--encoder", "logmell"), "did you mean 'logmel'?", "known:"
    )
    refused(
        run("extract", manifest, "--out", out, "--device", "cuda:99"), "device 'cuda:99' cannot be used here"
    )
    refused(run("extract", manifest, "--out", out, "--layers", "3", *LOGMEL), "layers '3'")
    refused(run("extract", manifest, "--out", out, "--codec", "gzip", *LOGMEL), "gzip", "zstd")
    refused(
        run("extract", manifest, "--out", out, "--encoder", "audiomae", "--weights", tmp_path / "no.pth"),
        "no.pth",
    )
    assert not out.exists()


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    result = run("extrcat")
    assert result.exit_code == 2
    assert "did you mean 'extract'?" in result.stderr


def test_every_command_has_help_with_an_example() -> None:
    from featcache.cli.main import COMMANDS

    for name in COMMANDS:
        result = run(name, "--help")
        assert result.exit_code == 0, result.output
        assert f"featcache {name}" in result.output.split("Options:")[0].split("\n", 2)[2], name


def test_a_stop_before_anything_is_kept_is_one_line_too(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import featcache.extraction.wanted

    def stop(*arguments: object, **rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(featcache.extraction.wanted, "clip_keys", stop)
    result = run("extract", make_manifest(4), "--out", tmp_path / "c.zarr", *LOGMEL)
    assert (result.exit_code, result.stderr) == (130, "stopped; run the same command again to go on\n")


@pytest.fixture
def start(warm_process: Callable[..., Any]) -> Callable[[Path, Path], Any]:
    """A function that begins an extraction, two clips at a time."""

    def begin(manifest: Path, out: Path) -> Any:
        settings = [*LOGMEL, "--batch-size", "2", "--workers", "1"]
        return warm_process(
            "featcache", "extract", manifest, "--out", out, *settings,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return begin


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_in_a_state_that_can_be_resumed(
    make_manifest: Make, tmp_path: Path, start: Callable[[Path, Path], Any], sign: int
) -> None:
    manifest, out = make_manifest(100), tmp_path / "c.zarr"
    process = start(manifest, out)
    while not list((out / "ledger").glob("*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(sign)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    stored = len(TokenCache.open(out))
    assert 4 <= stored < 100
    assert run("cache", "verify", out).exit_code == 0
    result = run("extract", manifest, "--out", out, *LOGMEL, "--batch-size", "2")
    assert result.exit_code == 0, result.output
    assert f"{100 - stored} encoded, {stored} already there" in result.stdout


def array_bytes(cache: Path) -> dict[str, bytes]:
    """Every file of the cache but the records of its runs."""
    return {
        str(file.relative_to(cache)): file.read_bytes()
        for file in sorted(cache.rglob("*"))
        if file.is_file() and file.name not in ("runs.jsonl", "lock")
    }


def test_killed_at_any_instant_the_same_command_ends_with_the_same_bytes(
    make_manifest: Make, tmp_path: Path, start: Callable[[Path, Path], Any]
) -> None:
    manifest, out = make_manifest(60), tmp_path / "c.zarr"
    settings = [*LOGMEL, "--batch-size", "2", "--workers", "1"]
    assert run("extract", manifest, "--out", tmp_path / "whole.zarr", *settings).exit_code == 0
    for delay in (0.0, 0.05, 0.15):
        process = start(manifest, out)
        while not (out / "lock").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.communicate()
    result = run("extract", manifest, "--out", out, *settings)
    assert result.exit_code == 0, result.output
    assert array_bytes(out) == array_bytes(tmp_path / "whole.zarr")


def test_a_second_process_is_told_who_writes(
    make_manifest: Make, tmp_path: Path, start: Callable[[Path, Path], Any]
) -> None:
    manifest, out = make_manifest(100), tmp_path / "c.zarr"
    process = start(manifest, out)
    while not list((out / "ledger").glob("*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # it would be done while this one still imports
    second = run("extract", manifest, "--out", out, *LOGMEL)
    os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert second.exit_code == 1
    assert f"{process.pid}" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert len(TokenCache.open(out)) == 100


def test_a_full_disk_is_one_line_and_can_be_resumed(
    make_manifest: Make, tmp_path: Path, warm_process: Callable[..., Any]
) -> None:
    manifest, out = make_manifest(12), tmp_path / "c.zarr"
    command = ["featcache", "extract", manifest, "--out", out, "--encoder", "logmel", "--clip-seconds", "1"]
    # One shard of 8 clips of 48 x 256 float16 tokens is 197 kB: more than the disk has left.
    words = [*map(str, command), "--shard-clips", "8"]
    script = (
        "import resource, sys; from featcache.cli.main import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)); sys.argv = {words}; main()"
    )
    process = warm_process("python", "-c", script)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert len(errors.strip().splitlines()) == 1, errors
    assert "disk" in errors
    assert "Traceback" not in errors
    result = run(*command[1:])
    assert result.exit_code == 0, result.output
    assert len(TokenCache.open(out)) == 12
