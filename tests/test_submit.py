"""Jobs of a cluster: each is a writer, and the cache they make is that of one process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from featcache.cache import TokenCache
from featcache.cli import submit
from featcache.cli.main import featcache

Make = Callable[..., Path]
LOGMEL = ["--encoder", "logmel", "--clip-seconds", "1", "--shard-clips", "4"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, [str(argument) for argument in arguments])


class InProcess:
    """Stands for a process: the command has run when it is there."""

    def __init__(self, command: list[str]) -> None:
        assert command[:3] == [sys.executable, "-m", "featcache.cli"]
        self.done = CliRunner().invoke(featcache, command[3:])

    def wait(self) -> int:
        return self.done.exit_code


def test_jobs_fill_the_cache_that_one_process_would(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import submitit

    manifest, out = make_manifest(14), tmp_path / "c.zarr"
    assert (
        run("extract", manifest, "--out", tmp_path / "whole.zarr", *LOGMEL, "--batch-size", 2).exit_code == 0
    )
    asked: dict[str, Any] = {}
    jobs: list[Any] = []

    class Executor(submitit.AutoExecutor):
        def __init__(self, folder: Path, cluster: str) -> None:
            assert cluster == "slurm"
            super().__init__(folder=folder, cluster="debug")

        def update_parameters(self, **options: Any) -> None:
            asked.update(options)

        def submit_array(self, fns: Any) -> Any:
            jobs.extend(super().submit_array(fns))
            return jobs

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setattr(submit, "Popen", InProcess)
    given = [manifest, "--out", out, *LOGMEL, "--batch-size", 2]
    more = ["--launcher", "slurm", "--gpus", 3, "--partition", "long", "--slurm", "timeout_min=720"]
    result = run("extract", *given, *more)
    assert (result.exit_code, "3 writers are queued" in result.stdout) == (0, True), result.output
    assert not out.exists()
    wanted = {"slurm_partition": "long", "timeout_min": 720, "gpus_per_node": 1, "cpus_per_task": 9}
    assert asked.items() >= wanted.items()
    assert [job._submission.result() for job in jobs] == [0, 0, 0]
    assert by_file(out) == by_file(tmp_path / "whole.zarr")
    assert len(TokenCache.open(out)) == 14


def by_file(cache: Path) -> dict[str, bytes]:
    found = [file for file in cache.rglob("*") if file.is_file() and file.name != "runs.jsonl"]
    return {str(file.relative_to(cache)): file.read_bytes() for file in found}


def test_a_job_that_fails_says_so_and_one_with_bad_clips_does_not(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "Popen", InProcess)
    manifest = make_manifest(2)
    (tmp_path / "audio/1.wav").write_bytes(b"no audio")
    job = submit.WriterJob(["extract", str(manifest), "--out", str(tmp_path / "c.zarr"), *LOGMEL], 0, 1)
    assert job() == 2
    (tmp_path / "c.zarr/zarr.json").write_text("damaged")
    with pytest.raises(RuntimeError, match="ended with exit code 1"):
        job()


def test_a_preempted_job_stops_its_writer_in_order_and_is_queued_as_it_was() -> None:
    job = submit.WriterJob(["extract"], 1, 2)
    # Not pause(): a signal that comes just before it would be waited for ever.
    lines = ("import signal, sys, time", "signal.signal(15, lambda *_: sys.exit(130))",
             "print(flush=True)", "while True: time.sleep(0.02)")  # fmt: skip
    command = [sys.executable, "-c", "\n".join(lines)]
    process = job._process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    again = job.checkpoint()
    process.stdout.close()
    assert process.returncode == 130
    assert (again.function, job.arguments) == (job, ["extract", "--writer", "1/2"])


def test_every_option_reaches_the_jobs_and_bad_ones_are_refused(make_manifest: Make, tmp_path: Path) -> None:
    command = featcache.get_command(None, "extract")  # type: ignore[arg-type]
    assert command is not None
    words = ["clips.csv", "--out", "c.zarr", "--reuse", "a", "--reuse", "b", "--skip-failed", "--layers",
             "1-3", "--mixup-snr", "1", "2", "--encoder-option", "num_heads=4", "--gpus", "2"]  # fmt: skip
    context = command.make_context("extract", words.copy())
    found = submit.again(context, submit.LAUNCHING)
    expected = command.make_context("extract", found[1:]).params
    assert found[0] == "extract"
    assert expected == {**context.params, "gpus": None}
    manifest = make_manifest(2)
    for bad, said in (
        (["--partition", "long"], "give --launcher slurm"),
        (["--launcher", "slurm", "--gpus", "all"], "how many jobs to queue"),
        (["--launcher", "slurm", "--writer", "0/2"], "leave that out"),
        (["--launcher", "slurm"], "nothing was queued on slurm"),
    ):
        result = run("extract", manifest, "--out", tmp_path / "c.zarr", *LOGMEL, *bad)
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1), result.output
        assert said in result.stderr
