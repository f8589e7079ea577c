"""What ``probe`` may be given: each argument is checked before any work is done."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

from featcache.arguments import (
    ABOVE_ZERO,
    COUNT,
    FROM_ZERO,
    NOT_BELOW_ZERO,
    SHARE,
    Rule,
    check,
    count_up_to,
    is_whole,
)
from featcache.errors import InputError, unknown
from featcache.heads.data.source import DeviceCache
from featcache.heads.data.tasks import Kind
from featcache.heads.probing.trackers import TRACKERS
from featcache.heads.training.trial import Schedule, Select, Training

THREADS = count_up_to(1024)
RULES: dict[str, Rule | Sequence[str]] = {
    "task": get_args(Kind),
    "trials": COUNT,
    "seeds": COUNT,
    "seed": FROM_ZERO,
    "shots": Rule(
        "whole numbers, 1 or more, or 'all'",
        lambda value: (
            isinstance(value, list | tuple)
            and bool(value)
            and all(own == "all" or COUNT.fits(own) for own in value)
        ),
    ),
    "lr": ABOVE_ZERO,
    "lr_range": Rule(
        "two numbers above 0, the smaller first",
        lambda value: (
            isinstance(value, list | tuple)
            and len(value) == 2
            and all(map(ABOVE_ZERO.fits, value))
            and value[0] < value[1]
        ),
    ),
    "weight_decay": NOT_BELOW_ZERO,
    "device_cache": get_args(DeviceCache),
    "threads": THREADS,
    "log": tuple(TRACKERS),
    "epochs": COUNT,
    "batch_size": Rule("a whole number, 2 or more", lambda value: is_whole(value) and value >= 2),
    "max_steps": COUNT,
    "patience": COUNT,
    "passes": COUNT,
    "min_epochs": FROM_ZERO,
    "decay": SHARE,
    "schedule": get_args(Schedule),
    "clip_norm": ABOVE_ZERO,
    "warmup_epochs": NOT_BELOW_ZERO,
    "final_lr": SHARE,
    "select": get_args(Select),
}


def check_probe(*, heads: Sequence[str], training: Mapping[str, Any], **given: Any) -> None:
    """Hold the arguments of ``probe`` to what it can work with.

    Raises:
        InputError: an argument that it does not have, or a value that it cannot take.
    """
    if not heads:
        raise InputError("no head to train; give one or more of featcache.heads.HEADS", options=("heads",))
    settings = ["max_steps", *(own.name for own in fields(Training) if own.name != "seed")]
    for name in training:
        if name not in settings:
            raise unknown("argument of probe", name, sorted([*settings, *given]))
    check(RULES, {**given, **training})
