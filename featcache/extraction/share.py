"""Which part of the work is this process's, where several fill one cache."""

import os
import re
from dataclasses import dataclass

import torch

from featcache.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Share:
    """Writer ``rank`` of ``count``: the planned shards whose number, divided by count, leaves rank."""

    rank: int = 0
    count: int = 1
    takeover: bool = False  # when done, it writes shards of others that nobody has begun
    local: int | None = None  # number on this machine, where the launcher says it: which GPU to take
    beside: int = 1  # processes of this machine that share the work, itself counted

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.count:
            raise InputError(
                f"the launcher says that this is process {self.rank} of {self.count}, counted from 0; give "
                "writer as r/N",
                options=("writer",),
            )

    @property
    def device(self) -> str:
        """What "auto" means for this process: each takes a GPU of its own where there are several."""
        gpus = torch.cuda.device_count()
        return "auto" if self.local is None or not gpus else f"cuda:{self.local % gpus}"


def share_of(writer: str | None) -> Share:
    """The share that ``writer`` names: "r/N" with r from 0, or "slurm"; else torchrun's, else all.

    SLURM has to be asked for: its variables are also set where one command is to do all the work, and arrays
    often run over encoders.

    Raises:
        InputError: it is neither, or this is no task of SLURM's.

    >>> share_of("1/4")
    Share(rank=1, count=4, takeover=False, local=None, beside=1)
    """
    if writer == "slurm":
        return _slurm()
    if writer is not None:
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", writer)
        if not found or not int(found[1]) < int(found[2]):
            raise InputError(
                f"writer {writer!r} not understood; wanted r/N with r from 0 to N-1, such as 0/4, or slurm",
                options=("writer",),
            )
        return Share(rank=int(found[1]), count=int(found[2]))
    if "TORCHELASTIC_RUN_ID" in os.environ or "LOCAL_RANK" in os.environ:
        return Share(
            rank=_number("RANK"), count=_number("WORLD_SIZE"), local=_number("LOCAL_RANK"),
            beside=_number("LOCAL_WORLD_SIZE", 1),
        )  # fmt: skip
    return Share()


def _slurm() -> Share:
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        return _array()
    if "SLURM_PROCID" in os.environ:
        return Share(
            rank=_number("SLURM_PROCID"), count=_number("SLURM_NTASKS"), local=_number("SLURM_LOCALID")
        )
    raise InputError(
        "writer slurm: this is no task of SLURM's (SLURM_ARRAY_TASK_ID and SLURM_PROCID are not set); start "
        "it with srun or as a job array, or give r/N",
        options=("writer",),
    )


def _array() -> Share:
    """An array's tasks, each of which may be several of srun's."""
    first, step = _number("SLURM_ARRAY_TASK_MIN"), _number("SLURM_ARRAY_TASK_STEP", 1)
    count = _number("SLURM_ARRAY_TASK_COUNT")
    last = _number("SLURM_ARRAY_TASK_MAX", first + (count - 1) * step)
    if step < 1 or last - first != (count - 1) * step:
        raise InputError(
            f"writer slurm: an array of {count} tasks from {first} to {last} leaves numbers out, so shards "
            "would be nobody's; number them 0-N, or give each task writer as r/N",
            options=("writer",),
        )
    rank, inner = (_number("SLURM_ARRAY_TASK_ID") - first) // step, _number("SLURM_STEP_NUM_TASKS", 1)
    if inner == 1:
        return Share(rank=rank, count=count)
    local = _number("SLURM_LOCALID", 0)
    return Share(rank=rank * inner + _number("SLURM_PROCID"), count=count * inner, local=local)


def _number(name: str, default: int | None = None) -> int:
    if default is not None and name not in os.environ:
        return default
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        raise InputError(
            f"the launcher's variable {name} is {os.environ.get(name)!r}, not a number; give writer as r/N",
            options=("writer",),
        ) from None
