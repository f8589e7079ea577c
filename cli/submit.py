"""An extraction as jobs of a cluster, one writer each, through submitit."""

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import click
from click.core import ParameterSource

from featcache.errors import InputError

LAUNCHING = ("launcher", "gpus", "partition", "slurm_options")  # parameters that are not for the jobs
WORKERS = 8  # decoding threads of a job, for which it gets cores
STOP_SECONDS = 60.0  # that a writer gets to keep what it has encoded


class WriterJob:
    """Writer ``rank`` of ``count``; submitit calls it in its job, and again after a preemption.

    Args:
        arguments: of ``featcache``, without ``--writer``
    """

    def __init__(self, arguments: Sequence[str], rank: int, count: int) -> None:
        self.arguments = [*arguments, "--writer", f"{rank}/{count}"]
        self._process: Popen[bytes] | None = None

    def __call__(self) -> int:
        """Run it; the exit code, 2 where clips could not be decoded.

        Raises:
            RuntimeError: it failed, so the job does.
        """
        self._process = Popen([sys.executable, "-m", "featcache.cli", *self.arguments])
        code = self._process.wait()
        if code not in (0, 2):
            raise RuntimeError(f"{' '.join(self.arguments)} ended with exit code {code}")
        return code

    def checkpoint(self) -> Any:
        """What is to be queued when the job is preempted or its time is up: the same again, which goes on."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)  # it keeps the batches that are encoded
            try:
                self._process.wait(STOP_SECONDS)
            except TimeoutExpired:
                self._process.kill()
            self._process = None
        return DelayedSubmission(self)


def submit(
    arguments: Sequence[str], jobs: int, folder: Path, options: Mapping[str, Any], cluster: str = "slurm"
) -> list[str]:
    """Queue so many writers of one cache; the ids of their jobs.

    Args:
        arguments: of ``featcache``, without ``--writer``
        folder: for the jobs' output and scripts
        options: of submitit's executor, such as ``slurm_partition``

    Raises:
        InputError: submitit is not installed, takes no such option, or finds no such cluster.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
    except ImportError:
        raise InputError("--launcher needs submitit: pip install 'featcache[slurm]'") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**options)
        queued = executor.submit_array([WriterJob(arguments, rank, jobs) for rank in range(jobs)])
    except (RuntimeError, NameError, ValueError, OSError, FailedJobError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"nothing was queued on {cluster}: {reason}") from None
    return [job.job_id for job in queued]


def submit_extraction(context: click.Context) -> None:
    """Queue the ``extract`` command of ``context`` as one job a GPU, and say so."""
    given = context.params
    if given["writer"] is not None or given["plan_only"]:
        raise InputError("--launcher gives each job its --writer; leave that out, and --plan alone first")
    if given["gpus"] == "all":
        raise InputError("--launcher needs to know how many jobs to queue; give --gpus a number")
    workers = given["workers"] or WORKERS
    options = {
        "name": "featcache", "gpus_per_node": 1, "tasks_per_node": 1, "cpus_per_task": workers + 1,
        **({"slurm_partition": given["partition"]} if given["partition"] else {}),
        **{key: int(own) if own.isdecimal() else own for key, own in given["slurm_options"].items()},
    }  # fmt: skip
    out = str(given["out"])
    folder = Path("featcache-jobs" if "://" in out else f"{out}.jobs")
    ids = submit(again(context, LAUNCHING), int(given["gpus"] or 1), folder, options, given["launcher"])
    click.echo(
        f"{len(ids)} writers are queued as jobs {ids[0]} to {ids[-1]}; what they say comes to {folder}"
    )
    click.echo("'featcache cache info' says how far the cache is; the same command queues what is left")


def again(context: click.Context, without: Sequence[str]) -> list[str]:
    """The words that gave a command what it was given, but for some of its parameters."""
    words = [context.info_name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in without or context.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[0])
        elif isinstance(value, Mapping):
            words += [word for key, own in value.items() for word in (parameter.opts[0], f"{key}={own}")]
        elif parameter.nargs > 1:
            words += [parameter.opts[0], *map(str, value)]
        else:
            every = value if isinstance(value, tuple | list) else (value,)
            words += [word for own in every for word in (parameter.opts[0], str(own))]
    return words
