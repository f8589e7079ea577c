"""The cells of a study as command lines, and as a job array of SLURM's."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from featcache.cache.format.durable import replace_file
from featcache.errors import FeatcacheError, InputError
from featcache.heads.campaign.study import StudyCell, StudyFile
from featcache.heads.report.results import digest_of
from featcache.output import keeping


def command_lines(study: StudyFile, cells: Sequence[StudyCell]) -> list[str]:
    """One line a cell, for any shell.

    The report is written by whoever ends; the last one's is of all.
    """
    return [
        shlex.join([
            "featcache", "study", str(study.path), "--only", f"encoder={cell.encoder.name}",
            "--only", f"dataset={cell.dataset.name}",
        ])
        for cell in cells
    ]  # fmt: skip


def submit(study: StudyFile, cells: Sequence[StudyCell]) -> str:
    """Hand the cells to SLURM as one job array; what sbatch says.

    Raises:
        InputError: there is no sbatch here.
        FeatcacheError: sbatch refuses.
    """
    lines = [
        line.replace("featcache", f"{shlex.quote(sys.executable)} -m featcache.cli", 1)
        for line in command_lines(study, cells)
    ]
    folder = study.results.absolute() / "slurm"
    file = folder / f"cells-{digest_of(lines)}.txt"  # a name of its own: an array that waits reads it later
    with keeping(folder, "nothing was submitted"):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(file, "".join(f"{line}\n" for line in lines).encode())
    own = {"job-name": study.name, "output": str(folder / "%A-%a.txt"), **study.slurm}
    options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in own.items()]
    command = ["sbatch", f"--array=1-{len(lines)}", f"--chdir={Path.cwd()}", *options]
    try:
        done = subprocess.run(command, input=_script(file), text=True, capture_output=True, check=False)
    except FileNotFoundError:
        raise InputError(
            "no sbatch on this machine; start the study where SLURM is, or print one command line a cell "
            "for another launcher with cells",
            options=("cells",),
        ) from None
    if done.returncode:
        raise FeatcacheError(f"sbatch refused: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def _script(file: Path) -> str:
    return f'#!/bin/sh\neval "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(file))})"\n'
