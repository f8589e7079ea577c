"""The options of a head: as a user writes them, and whether the head can take them."""

import json
import math
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, get_args

from featcache.errors import InputError
from featcache.heads.base import HeadSpec
from featcache.heads.pooled import Norm

SIZES = ("grid", "num_layers")  # not the user's: build_head gives these


def options_of(spec: HeadSpec) -> dict[str, Parameter]:
    """The options of a head: the keyword arguments of its class."""
    return {
        name: parameter
        for name, parameter in signature(spec.build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in SIZES
    }


def check_options(spec: HeadSpec, options: Mapping[str, Any]) -> None:
    """Options are counts (1 or more), shares and weights (0 or more), yes and no, or one of some words.

    Raises:
        InputError: an option that the head does not have, or a value that it cannot take.
    """
    known = options_of(spec)
    for name, value in options.items():
        refused = f"head {spec.name!r} cannot be built with {name}={value!r}: "
        if name not in known:
            raise InputError(f"{refused}its options are {', '.join(known) or 'none'}")
        wanted, fits = _wanted(name, known[name].annotation, value)
        if not fits:
            raise InputError(f"{refused}wanted {wanted}")


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options in NAME, NAME:OPTION=VALUE,… or FILE.py:CLASS:OPTION=VALUE,…

    Values are numbers, true, false, null or words.

    Raises:
        InputError: an option without a value.

    >>> split_options("protobin:per_class=10,dropout=0.2")
    ('protobin', {'per_class': 10, 'dropout': 0.2})
    >>> split_options("mine.py:Mine:norm=batch")
    ('mine.py:Mine', {'norm': 'batch'})
    """
    file, mark, rest = text.partition(".py:") if ".py:" in text else ("", "", text)
    own, _, listed = rest.partition(":")
    name, options = file + mark + own, {}
    for part in filter(None, listed.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise InputError(f"head {text!r}: {part!r} has no value; wanted {name}:option=value")
        options[key.strip()] = _value(value.strip())
    return name, options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _wanted(name: str, kind: Any, value: Any) -> tuple[str, bool]:
    """What an option takes, in words, and whether this value is that."""
    if kind is bool:
        return "true or false", isinstance(value, bool)
    if kind is float:
        share = name == "dropout"
        fits = _is_number(value) and value >= 0 and (not share or value < 1)
        return "a number from 0 to below 1" if share else "a number, 0 or more", fits
    if kind is Norm:
        return f"one of {', '.join(get_args(Norm))}", value in get_args(Norm)
    if kind in (int, int | None):
        fits = type(value) is int and value >= 1
        return "a whole number, 1 or more", fits or (value is None and kind is not int)
    return "", True  # an option of a user's head: its own business


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
