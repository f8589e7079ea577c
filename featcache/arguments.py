"""What a public function may be given: one rule an argument, checked before any work is done."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from featcache.errors import InputError, unknown


class Rule(NamedTuple):
    """What is wanted of an argument, in words, and whether a value is that."""

    wanted: str
    fits: Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """A whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """A finite number, and no truth value."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return isinstance(value, int) or math.isfinite(value)


def count_up_to(most: int) -> Rule:
    """A whole number from 1 to ``most``: what takes memory in proportion needs an end."""
    wanted = f"a whole number, 1 or more, at most {most:,}"
    return Rule(wanted, lambda value: is_whole(value) and 1 <= value <= most)


def seconds_from(least: float, most: float) -> Rule:
    """A time [s] above ``least`` (which is included if it is not 0), at most ``most``."""
    wanted = f"a number {'above 0' if least == 0 else f'from {least}'} to {most:,} (seconds)"
    return Rule(wanted, lambda value: is_number(value) and least <= value <= most and value > 0)


COUNT = Rule("a whole number, 1 or more", lambda value: is_whole(value) and value >= 1)
FROM_ZERO = Rule("a whole number, 0 or more", lambda value: is_whole(value) and value >= 0)
ABOVE_ZERO = Rule("a number above 0", lambda value: is_number(value) and value > 0)
NOT_BELOW_ZERO = Rule("a number, 0 or more", lambda value: is_number(value) and value >= 0)
CLIP_SECONDS = seconds_from(0, 3600)  # an hour of 128 mel bands in patches of 16: 180,000 tokens
SHARE = Rule("a share from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)


def check(rules: Mapping[str, Rule | Sequence[str]], given: Mapping[str, Any]) -> None:
    """Hold arguments to their rules: a rule, or the words that are known; None is "not given".

    Raises:
        InputError: naming the argument, its value and what is wanted.

    >>> check({"epochs": COUNT}, {"epochs": 0})
    Traceback (most recent call last):
    featcache.errors.InputError: epochs is 0; wanted a whole number, 1 or more
    """
    for name, value in given.items():
        rule = rules.get(name)
        if value is None or rule is None:
            continue
        if isinstance(rule, Rule):
            if not rule.fits(value):
                raise InputError(f"{name} is {value!r}; wanted {rule.wanted}", options=(name,))
        elif value not in rule:
            raise unknown(name, str(value), list(rule), options=(name,))
