"""What is written goes where it should, survives what it can, and says one line where it cannot."""

import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.errors import FeatcacheError, InputError, Interrupted, OutputError
from featcache.heads.probing.probe import probe
from featcache.heads.report.compare import compare
from featcache.heads.training.resume import claimed
from featcache.output import writable

Make = Callable[..., tuple[Path, Path]]
SHORT: dict[str, Any] = {"heads": ["linear"], "epochs": 3, "batch_size": 16, "seeds": 1, "solved": False}


def stop(epoch: int, epochs: int, outcomes: Sequence[Any]) -> None:
    raise KeyboardInterrupt


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda raw: raw[:100], "is cut short"),
        (lambda raw: b"", "is cut short"),
        (
            lambda raw: raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 4]) + raw[len(raw) // 2 + 1 :],
            "checksum",
        ),
        (lambda raw: raw[:-1], "is cut short"),
    ],
    ids=["cut", "emptied", "flipped", "one byte short"],
)
def test_a_state_in_doubt_is_trained_over_and_said(
    make_tokens: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    why: str,
) -> None:
    made = make_tokens()
    (whole,) = probe(*made, out=tmp_path / "whole", **SHORT)
    with pytest.raises(Interrupted):
        probe(*made, out=tmp_path / "cut", watch=stop, **SHORT)
    (state,) = (tmp_path / "cut/state").iterdir()
    state.write_bytes(damage(state.read_bytes()))
    with caplog.at_level(logging.WARNING, "featcache"):
        (again,) = probe(*made, out=tmp_path / "cut", **SHORT)
    (said,) = [record.getMessage() for record in caplog.records if "state" in record.getMessage()]
    assert why in said
    assert said.endswith("training starts over")
    assert again["test"] == whole["test"]
    assert again["run"] == whole["run"]


def test_the_second_of_two_equal_runs_is_refused_and_nothing_is_listed_twice(
    make_tokens: Make, tmp_path: Path
) -> None:
    made = make_tokens()
    settings = {**SHORT, "search": True, "trials": 2, "lr": 0.01}  # no rate, so none beyond the best
    refused = []

    def another(epoch: int, epochs: int, outcomes: Sequence[Any]) -> None:
        with pytest.raises(
            OutputError, match=r"another process runs the same into .*; wait for it to end"
        ) as error:
            probe(*made, out=tmp_path, **settings)
        refused.append(error)

    probe(*made, out=tmp_path, watch=another, **settings)
    assert refused
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert list((tmp_path / "state").iterdir()) == []


def test_a_claim_ends_with_its_run(tmp_path: Path) -> None:
    for _ in range(2):
        with claimed(tmp_path / "state/a.lock"):
            assert (tmp_path / "state/a.lock").exists()
    with pytest.raises(RuntimeError, match="own"), claimed(tmp_path / "state/a.lock"):
        raise RuntimeError("own")
    with claimed(tmp_path / "state/a.lock"):
        pass


@contextmanager
def full_after(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: the kernel's own error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("num_bytes", [0, 100, 1000, 3000])
def test_a_full_disk_in_probe_is_one_line_and_leaves_nothing_half_written(
    make_tokens: Make, tmp_path: Path, num_bytes: int
) -> None:
    made = make_tokens()
    with (
        full_after(num_bytes),
        pytest.raises(
            OutputError,
            match=r"cannot write to .*; what is finished is kept: make room, then run the same command again",
        ),
    ):
        probe(*made, out=tmp_path / "out", **SHORT)
    assert not [name for name in files_in(tmp_path / "out") if name.endswith((".partial", ".tmp", ".lock"))]
    (result,) = probe(*made, out=tmp_path / "out", **SHORT)
    (whole,) = probe(*made, out=tmp_path / "whole", **SHORT)
    assert result["test"] == whole["test"]


def test_a_full_disk_in_compare_and_demo_is_one_line(make_tokens: Make, tmp_path: Path) -> None:
    probe(*make_tokens(), out=tmp_path / "out", **SHORT)
    with full_after(10), pytest.raises(OutputError, match="the results themselves are as they were"):
        compare(tmp_path / "out", tmp_path / "tables", draws=0)
    assert files_in(tmp_path / "tables") == []
    for num_bytes in (10, 1000):
        with full_after(num_bytes):
            result = CliRunner().invoke(featcache, ["demo", "--clips", "40", "--out", str(tmp_path / "demo")])
        assert result.exit_code == 1, result.exception
        (line,) = [line for line in result.output.splitlines() if "Error" in line]
        assert "make room, then run the same command again" in line
    assert not [name for name in files_in(tmp_path / "demo") if name.endswith(".partial")]


@pytest.mark.parametrize("command", ["probe", "compare", "extract", "demo"])
def test_an_out_that_cannot_be_a_folder_is_refused_before_any_work(
    make_tokens: Make, tmp_path: Path, command: str
) -> None:
    cache, manifest = make_tokens()
    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "below"
    words = {
        "probe": [str(cache), "--manifest", str(manifest), "--head", "linear"],
        "compare": [str(tmp_path)],
        "extract": [str(manifest)],
        "demo": [],
    }[command]
    result = CliRunner().invoke(featcache, [command, *words, "--out", str(out)])
    assert result.exit_code == 2
    assert "cannot be a folder" in result.output
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_the_right_to_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may do everything
    with pytest.raises(InputError, match="cannot be written to; choose another"):
        writable(tmp_path / "new")


def test_a_long_manifest_name_still_names_files(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    long = manifest.with_name("m" * 220 + ".csv")
    manifest.rename(long)
    (result,) = probe(cache, long, out=tmp_path / "out", **SHORT)
    head = result.file("head")
    assert head.exists()
    assert head.name.endswith(f"-{result['run']}.safetensors")


def test_no_flipped_bit_of_results_or_trials_gives_a_traceback(make_tokens: Make, tmp_path: Path) -> None:
    made, out = make_tokens(), tmp_path / "out"
    probe(*made, out=out, search=True, trials=2, **SHORT)
    where = random.Random(5)
    raw = (out / "results.jsonl").read_bytes()
    for start in range(0, len(raw), max(1, len(raw) // 150)):
        data = bytearray(raw)
        data[min(start + where.randrange(40), len(raw) - 1)] ^= 1 << where.randrange(8)
        (out / "results.jsonl").write_bytes(data)
        with suppress(FeatcacheError):
            compare(out, draws=0)
    (out / "results.jsonl").unlink()
    raw = (out / "trials.jsonl").read_bytes()
    (out / "trials.jsonl").write_bytes(
        raw.replace(b'"scores"', b'"scoret"', 1).replace(b'"number"', b'"numbes"', 1)
    )
    assert len(probe(*made, out=out, search=True, trials=2, **SHORT)) == 1


def test_a_trial_with_one_wrong_digit_is_trained_again(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens()
    search: dict[str, Any] = {**SHORT, "search": True, "trials": 3}
    (whole,) = probe(*made, out=tmp_path / "whole", **search)
    probe(*made, out=tmp_path / "cut", **search)
    trials, results = tmp_path / "cut/trials.jsonl", tmp_path / "cut/results.jsonl"
    first, *rest = trials.read_text().splitlines()
    record = json.loads(first)
    best = {**record, "scores": [1.0] * len(record["scores"])}  # the worst rate as the best
    trials.write_text("\n".join([json.dumps(best), *rest]) + "\n")
    results.unlink()
    (again,) = probe(*made, out=tmp_path / "cut", **search)
    assert (again["lr"], again["test"]) == (whole["lr"], whole["test"])


def test_scores_that_are_damaged_or_no_file_are_one_line(make_tokens: Make, tmp_path: Path) -> None:
    (result,) = probe(*make_tokens(), out=tmp_path / "out", **SHORT)
    result.file("scores").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(InputError, match=r"the test scores .* cannot be read \(it is damaged\)"):
        result.scores()
    result.file("scores").unlink()
    os.mkfifo(result.file("scores"))
    with pytest.raises(InputError, match="is not a regular file"):
        result.scores()


STUCK = """
import os, signal, sys, time
from concurrent.futures import ThreadPoolExecutor
from featcache.cli.signals import install
install()
pool = ThreadPoolExecutor(1)
pool.submit(time.sleep, 60)
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("stopping", flush=True)
    pool.shutdown(wait=True)
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once_with_one_line(second: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(second)
    _, said = process.communicate(timeout=30)
    assert said.split() == (
        [
            "stopped",
            "at",
            "once;",
            "what",
            "was",
            "finished",
            "is",
            "kept,",
            "and",
            "the",
            "same",
            "command",
            "goes",
            "on",
            "from",
            "there",
        ]
    )
    assert process.returncode == 130


def test_a_signal_waits_until_a_module_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(0.5)\n")
    script = """
        import time
        from featcache.cli.signals import install
        install()
        try:
            import slow_module
            print("loaded", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            print("stopped", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "loaded\nstopped\n"
    assert process.returncode == 0
