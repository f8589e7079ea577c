"""One process for each GPU: the cache of one process, one bar, one summary."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest
from click.testing import CliRunner, Result

from featcache.cli import ranks
from featcache.cli.main import featcache
from featcache.errors import Interrupted

Make = Callable[..., Path]
LOGMEL = ["--encoder", "logmel", "--clip-seconds", "1", "--shard-clips", "4", "--batch-size", "2"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, [str(argument) for argument in arguments])


class InProcess:
    """Stands for a process: the command has run when it is there."""

    commands: list[list[str]] = []  # noqa: RUF012
    killed: set[str] = set()  # noqa: RUF012

    def __init__(self, command: list[str], *, env: dict[str, str], **rest: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "featcache.cli"]
        assert rest["start_new_session"]
        self.commands.append(command[3:])
        if env["RANK"] in self.killed:
            self.code, output, errors = -9, "", ""
        else:
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
            done = CliRunner(env={name: env[name] for name in names}).invoke(featcache, command[3:])
            self.code, output, errors = done.exit_code, done.stdout, done.stderr
        self.stdout, self.stderr = io.StringIO(output), io.StringIO(errors)

    def poll(self) -> int:
        return self.code

    def wait(self) -> int:
        return self.code


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "gpus_here", lambda: 2)
    monkeypatch.setattr(ranks, "Popen", InProcess)
    monkeypatch.setattr(InProcess, "commands", [])
    monkeypatch.setattr(InProcess, "killed", set())


def by_file(cache: Path) -> dict[str, bytes]:
    found = [file for file in cache.rglob("*") if file.is_file() and file.name != "runs.jsonl"]
    return {str(file.relative_to(cache)): file.read_bytes() for file in found}


@pytest.mark.parametrize("killed", [False, True])
def test_processes_fill_the_cache_that_one_would_and_say_so_once(
    make_manifest: Make, tmp_path: Path, killed: bool
) -> None:
    manifest, out = make_manifest(14), tmp_path / "c.zarr"
    (tmp_path / "audio/5.wav").write_bytes(b"no audio")
    assert (
        run("extract", manifest, "--out", tmp_path / "whole.zarr", *LOGMEL, "--device", "cpu").exit_code == 2
    )
    assert not InProcess.commands
    InProcess.killed |= {"0"} if killed else set()
    asked = ["--gpus", "all"] if killed else []  # all by default
    result = run("extract", manifest, "--out", out, *LOGMEL, *asked)
    assert len(InProcess.commands) == 2
    if killed:  # the other has done it all but said that one failed
        assert (result.exit_code, "1 of 2 processes failed (exit codes -9, 2)" in result.stderr) == (1, True)
    else:
        assert result.exit_code == 2, result.output
        assert "14 clips (13 encoded, 1 failed)" in result.stdout
        assert result.stdout.count("next: ") == 1
        assert result.stderr.count("failed: audio/5.wav") == 1
        assert result.stderr.count("plan: 14 clips to encode") == 1
    assert by_file(out) == by_file(tmp_path / "whole.zarr")
    first = InProcess.commands[0]
    assert first.count("--takeover") == first.count("--json") == 1
    assert "--gpus" not in first


def test_what_one_process_alone_can_do_is_refused(make_manifest: Make, tmp_path: Path) -> None:
    given = ["extract", make_manifest(2), "--out", tmp_path / "c.zarr", *LOGMEL, "--gpus"]
    for bad, said in (
        ([3], "this machine has 2 GPUs for torch"),
        (["all", "--writer", "0/2"], "--writer is for one"),
        (["all", "--device", "cuda:1"], "leave --device out"),
        (["all", "--writer", "0/2", "--plan"], "--writer is for one"),
        (["all", "--device", "cuda:1", "--plan"], "leave --device out"),
        (["none"], "neither a number of GPUs nor all"),
        (
            [2, "--store-dtype", "int4", "--layers", "99"],
            "this encoder has layers",
        ),  # each finds it, one says it
    ):
        result = run(*given, *bad)
        assert (result.exit_code, result.stderr.count(said)) == (2, 1), result.output
    assert not (tmp_path / "c.zarr").exists()


def test_a_plan_is_for_all_gpus_that_the_run_would_take(make_manifest: Make, tmp_path: Path) -> None:
    words = ["extract", make_manifest(4), "--out", tmp_path / "c.zarr", *LOGMEL, "--plan", "--json"]
    by_itself, asked = (json.loads(run(*words, *more).stdout) for more in ([], ["--gpus", "2"]))
    one = json.loads(run(*words, "--device", "cpu").stdout)
    assert (by_itself["writers"], asked["writers"], one["writers"]) == (2, 2, 1)
    assert not InProcess.commands


def test_a_machine_without_gpus_says_so(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "gpus_here", lambda: 0)
    result = run("extract", make_manifest(2), "--out", tmp_path / "c.zarr", *LOGMEL, "--gpus", "all")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "--gpus all: this machine has no GPU for torch" in result.stderr


def test_a_stop_reaches_every_process_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("import signal, sys, time", "signal.signal(15, lambda *_: sys.exit(130))",
             "print('up', file=sys.stderr)", "while True: time.sleep(0.02)")  # fmt: skip
    started = []

    def popen(command: list[str], **rest: Any) -> Any:
        started.append(real([sys.executable, "-c", "\n".join(lines)], **rest))
        return started[-1]

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.undo()
    real, said = subprocess.Popen, []
    monkeypatch.setattr(ranks, "Popen", popen)

    def noted(rank: ranks.Rank, stream: TextIO) -> None:
        with stream:
            said.append(stream.readline())

    monkeypatch.setattr(ranks.Rank, "_pass_on", noted)
    monkeypatch.setattr(ranks, "sleep", lambda _: stop(0) if len(said) == 2 else None)
    with pytest.raises(Interrupted, match="what was encoded is kept"):
        ranks.run(["extract"], 2, None)
    assert [process.returncode for process in started] == [130, 130]
    assert os.getpgid(0) != started[0].pid
