"""The table of heads, and from a name to a head: built in, of a user's file, or of an installed package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any, cast, get_args

from featcache.errors import InputError, unknown
from featcache.heads.attentive import ABMILP, EP, MHCA, SIMPOOL
from featcache.heads.base import Head, HeadSpec, Reads
from featcache.heads.layerwise import ATTENTIVE_LAYERS, CGP
from featcache.heads.linear import LINEAR, LINEAR_MEAN, MLP
from featcache.heads.options import SIZES, check_options, split_options
from featcache.heads.pooling import CONV, LINEARC, LINPRE, MEANMAX, TFMEAN
from featcache.heads.prototypical import PROTO, PROTOBIN, PROTOFLOAT
from featcache.plugins import entry_point, entry_point_names, from_file

_SPECS = (
    LINEAR, LINEAR_MEAN, MLP, LINEARC, CONV, LINPRE, MEANMAX, TFMEAN, MHCA, EP, SIMPOOL, ABMILP, PROTO,
    PROTOFLOAT, PROTOBIN, ATTENTIVE_LAYERS, CGP,
)  # fmt: skip

HEADS: dict[str, HeadSpec] = {spec.name: spec for spec in _SPECS}
ALIASES = {"attentive": "mhca"}
ENTRY_POINTS = "featcache.heads"
_HOW = "docs/adding-a-head.md has a complete example"
_UNSAID = "not stated"


def register_head(target: type[Head] | HeadSpec, name: str | None = None) -> HeadSpec:
    """Add a head to the table for the rest of this process.

    Args:
        target: a class of heads, or a spec
        name: what it is called; the spec's own name, or the class's in lower case, unless given

    Raises:
        InputError: it is no head, or the name is taken by another one.
    """
    spec = _described(name or getattr(target, "name", None) or target.__name__.lower(), target)  # type: ignore[union-attr]
    known = HEADS.get(ALIASES.get(spec.name, spec.name))
    if known is not None and known.build is not spec.build:
        raise InputError(f"there is a head named {spec.name!r} already; register yours under another name")
    HEADS[spec.name] = spec
    return spec


def head_spec(name: str) -> HeadSpec:
    """What is true of a head before it is built.

    Args:
        name: one of ``HEADS`` or its alias, ``path/to/file.py:Class``, or the name of an entry point
            in the group ``featcache.heads``

    Raises:
        InputError: there is no such head; the message has the nearest name.
    """
    name = ALIASES.get(name, name)
    if name in HEADS:
        return HEADS[name]
    if ".py:" in name:
        return _described(name, from_file(name, "head"))
    target = entry_point(ENTRY_POINTS, name)
    if target is not None:
        return _described(name, target)
    raise unknown("head", name, sorted([*HEADS, *ALIASES, *entry_point_names(ENTRY_POINTS)]))


def build_head(
    name: str,
    dim: int,
    num_classes: int,
    *,
    grid: tuple[int, int] | None = None,
    num_layers: int = 1,
    **options: Any,
) -> Head:
    """Build a head with fresh weights.

    Args:
        name: as for ``head_spec``
        grid: (F, T) of the token map; heads that read the grid need it.
        num_layers: kept layers, for heads that read them all.
        options: of the head itself, e.g. ``per_class=10`` for protobin.

    Raises:
        InputError: no head of that name, an option that it does not have, or a value it cannot take.

    >>> import torch
    >>> build_head("protobin", 8, 3)(torch.randn(2, 5, 8), None, None).shape
    torch.Size([2, 3])
    """
    spec = head_spec(name)
    taken = signature(spec.build).parameters
    sizes = {key: value for key, value in zip(SIZES, (grid, num_layers), strict=True) if key in taken}
    check_options(spec, options)
    head = spec.build(dim, num_classes, **sizes, **options)
    head.config = {"name": spec.name, "dim": dim, "num_classes": num_classes, **sizes, **options}
    return head


@dataclass(frozen=True)
class Choice:
    """A head as a user names it, and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """How it is named in tables, and what ``parse_choice`` reads."""
        own = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(self.options.items()))
        return f"{self.name}:{own}" if own else self.name


def parse_choice(text: str) -> Choice:
    """Read NAME or NAME:OPTION=VALUE,…

    Raises:
        InputError: no head of that name, an option without a value, or one that it cannot take.

    >>> parse_choice("attentive:num_heads=4")
    Choice(name='mhca', options={'num_heads': 4})
    """
    name, options = split_options(text)
    spec = head_spec(name)
    check_options(spec, options)
    return Choice(spec.name, options)


def _described(name: str, target: Any) -> HeadSpec:
    """The spec of a user's head: its own, or read off the attributes of its class."""
    if isinstance(target, HeadSpec):
        return replace(target, name=name)
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
        source=getattr(target, "source", _UNSAID),
    )  # fmt: skip
