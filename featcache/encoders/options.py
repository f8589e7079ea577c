"""What an encoder takes beyond weights and clip length: the keyword arguments of its builder."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from featcache.arguments import is_whole
from featcache.errors import InputError, unknown

_ARGUMENT = ("encoder_options",)
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def option_names(build: Callable[..., Any]) -> list[str]:
    """The names of an encoder's options.

    >>> def build(weights, clip_seconds, *, num_heads: int | None = None): ...
    >>> option_names(build)
    ['num_heads']
    """
    try:
        parameters = inspect.signature(build).parameters
    except (TypeError, ValueError):  # a user's class may hide it
        return []
    return [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY]


def read_options(name: str, build: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as values of the types that the builder names; text is read as the command line gives it.

    Raises:
        InputError: there is no such option, or its value is none.
    """
    known = option_names(build)
    for option in given:
        if option not in known:
            if not known:
                raise InputError(f"{name} takes no options; leave out {option}", options=_ARGUMENT)
            raise unknown(f"option of {name}", option, known, options=_ARGUMENT)
    return {option: _read(name, option, value, build) for option, value in given.items()}


def _read(name: str, option: str, value: Any, build: Callable[..., Any]) -> Any:
    kind = inspect.signature(build).parameters[option].annotation
    read: Any
    if kind is bool:
        read = _TRUTH.get(value.lower()) if isinstance(value, str) else value
        wanted, fits = "true or false", isinstance(read, bool)
    elif kind == int | None:
        read = int(value) if isinstance(value, str) and value.isdecimal() else value
        wanted, fits = "a whole number, 1 or more", is_whole(read) and read >= 1
    else:
        return value
    if not fits:
        raise InputError(f"{option} of {name} is {value!r}; wanted {wanted}", options=_ARGUMENT)
    return read
