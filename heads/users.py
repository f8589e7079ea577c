"""Heads of users: what a class, a file or an installed package says of its head."""

from dataclasses import replace
from typing import Any, cast, get_args

from featcache.errors import InputError
from featcache.heads.base import Head, HeadSpec, Reads
from featcache.plugins import entry_point, from_file, source_digest

ENTRY_POINTS = "featcache.heads"
_HOW = "docs/adding-a-head.md has a complete example"
_UNSAID = "not stated"


def find(name: str, *, again: bool = True) -> tuple[Any, str]:
    """What a file or an installed package has under a name, and the digest of the file.

    Args:
        again: run a file again where it has changed since it was run in this process

    Returns:
        None for a name that is no file and that no package offers.

    Raises:
        InputError: what is there cannot be run.
    """
    return from_file(name, "head", again=again) if ".py:" in name else (entry_point(ENTRY_POINTS, name), "")


def described(name: str, target: Any, code: str = "") -> HeadSpec:
    """The spec of a user's head: its own, or read off the attributes of its class.

    Args:
        code: digest of the file that it is in; of its own source unless given

    Raises:
        InputError: it is no head, or does not say what it reads.
    """
    if isinstance(target, HeadSpec):
        return replace(target, name=name, code=code or target.code or source_digest(target.build))
    if not (isinstance(target, type) and issubclass(target, Head)):
        raise InputError(f"{name} is no head: wanted a class derived from featcache.heads.Head; {_HOW}")
    reads = getattr(target, "reads", None)
    if reads not in get_args(Reads):
        raise InputError(
            f"{name} must say what it reads: the class attribute reads is {reads!r}, wanted one of "
            f"{', '.join(get_args(Reads))}; {_HOW}"
        )
    text = (target.__doc__ or "").strip().split("\n")[0].rstrip(".")
    return HeadSpec(
        name=name, build=target, reads=cast(Reads, reads), family=getattr(target, "family", "of a user"),
        summary=text or _UNSAID, formula=getattr(target, "formula", _UNSAID), parameters=_UNSAID,
        source=getattr(target, "source", _UNSAID), code=code or source_digest(target),
    )  # fmt: skip


def title_of(target: object) -> str:
    """What a head is called unless it is told otherwise."""
    own = getattr(target, "name", None)
    kind = target if isinstance(target, type) else type(target)
    return own if isinstance(own, str) and own else kind.__name__.lower()


def one_class(one: Any, other: Any) -> bool:
    """Whether two classes are one, or one of a user's defined twice."""
    place = _place(one)
    return one is other or (place is not None and place == _place(other))


def _place(target: Any) -> str | None:
    name = getattr(target, "__qualname__", None)
    return name and f"{target.__module__}.{name}"
