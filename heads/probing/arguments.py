"""What ``probe`` may be given: each argument is checked before any work is done."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

from featcache.errors import InputError, unknown
from featcache.heads.data.source import DeviceCache
from featcache.heads.data.tasks import Kind
from featcache.heads.training.trial import Select, Training

# argument -> (what is wanted, whether a value is that); None means "not given" and is always allowed
_WHOLE = ("a whole number, 1 or more", lambda value: _is_int(value) and value >= 1)
_RULES: dict[str, tuple[str, Any]] = {
    "trials": _WHOLE,
    "seeds": _WHOLE,
    "seed": ("a whole number, 0 or more", lambda value: _is_int(value) and value >= 0),
    "lr": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "weight_decay": ("a number, 0 or more", lambda value: _is_number(value) and value >= 0),
    "epochs": _WHOLE,
    "batch_size": ("a whole number, 2 or more", lambda value: _is_int(value) and value >= 2),
    "patience": _WHOLE,
    "clip_norm": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "warmup_epochs": ("a number, 0 or more", lambda value: _is_number(value) and value >= 0),
    "final_lr": ("a share from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
}
_WORDS = {"task": get_args(Kind), "device_cache": get_args(DeviceCache), "select": get_args(Select)}


def check_probe(*, heads: Sequence[str], training: Mapping[str, Any], **given: Any) -> None:
    """Hold the arguments of ``probe`` to what it can work with.

    Raises:
        InputError: an argument that it does not have, or a value that it cannot take.
    """
    if not heads:
        raise InputError("no head to train; give one or more of featcache.heads.HEADS", options=("heads",))
    settings = [own.name for own in fields(Training) if own.name != "seed"]
    for name in training:
        if name not in settings:
            raise unknown("argument of probe", name, sorted([*settings, *given]))
    for name, value in {**given, **training}.items():
        if value is not None:
            _check(name, value)


def _check(name: str, value: Any) -> None:
    if name in _WORDS:
        if value not in _WORDS[name]:
            raise unknown(name, str(value), list(_WORDS[name]), options=(name,))
    elif name in _RULES and not _RULES[name][1](value):
        raise InputError(f"{name} is {value!r}; wanted {_RULES[name][0]}", options=(name,))


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
