"""The options of a head: as a user writes them, and whether the head can take them."""

import json
import math
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, Literal, get_args, get_origin

from featcache.arguments import is_number, is_whole
from featcache.errors import InputError
from featcache.heads.base import HeadSpec
from featcache.heads.standardize import Standardize

SIZES = ("grid", "num_layers")  # not the user's: build_head gives these
COMMON = {  # of every head, whatever its class: build_head sees to them
    "standardize": Parameter("standardize", Parameter.KEYWORD_ONLY, default="none", annotation=Standardize)
}


def options_of(spec: HeadSpec) -> dict[str, Parameter]:
    """The options of a head: the keyword arguments of its class, and those that every head has."""
    own = {
        name: parameter
        for name, parameter in signature_of(spec).items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in SIZES
    }
    return {**own, **COMMON}


def signature_of(spec: HeadSpec) -> dict[str, Parameter]:
    """The parameters of a head's class; annotations that are written as text become types."""
    try:
        return dict(signature(spec.build, eval_str=True).parameters)
    except Exception:  # text that is no type when it runs, as one that is imported for type checkers alone
        return dict(signature(spec.build).parameters)


def describe_options(spec: HeadSpec) -> list[tuple[str, Any, str]]:
    """Name and default of each option, and in words what it takes; "" where that is the head's own business.

    >>> from featcache.heads.linear import LINEAR
    >>> describe_options(LINEAR)[1]
    ('dropout', 0.0, 'a number from 0 to below 1')
    """
    return [(name, own.default, _wanted(own, None)[0]) for name, own in options_of(spec).items()]


def check_options(spec: HeadSpec, options: Mapping[str, Any]) -> None:
    """Options are counts (1 or more), shares and weights (0 or more), yes and no, or one of some words.

    What an option takes follows from its annotation; one of another type is the head's own business.

    Raises:
        InputError: an option that the head does not have, or a value that it cannot take.
    """
    known = options_of(spec)
    for name, value in options.items():
        refused = f"head {spec.name!r} cannot be built with {name}={value!r}: "
        if name not in known:
            raise InputError(f"{refused}its options are {', '.join(known) or 'none'}")
        wanted, fits = _wanted(known[name], value)
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


def _wanted(option: Parameter, value: Any) -> tuple[str, bool]:
    """What an option takes, in words, and whether this value is that.

    A default below the usual least value says that an option has none.
    """
    kind, default = option.annotation, option.default
    if kind is bool:
        return "true or false", isinstance(value, bool)
    if kind is float:
        if option.name == "dropout":
            return "a number from 0 to below 1", is_number(value) and 0 <= value < 1
        least = -math.inf if is_number(default) and default < 0 else 0
        return "a number" if least else "a number, 0 or more", is_number(value) and value >= least
    if kind in (int, int | None):
        return _wanted_int(kind, default, value)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}", value in get_args(kind)
    return "", True  # an option of a user's head: its own business


def _wanted_int(kind: Any, default: Any, value: Any) -> tuple[str, bool]:
    least = -math.inf if is_whole(default) and default < 1 else 1
    words = "a whole number" + (", 1 or more" if least == 1 else "")
    return words, (is_whole(value) and value >= least) or (value is None and kind is not int)
