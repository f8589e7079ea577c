"""The table of heads, and from a name to a head: built in, of a user's file, or of an installed package."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from featcache.errors import InputError, unknown
from featcache.heads.abmilp import ABMILP
from featcache.heads.attentive import EP, MHCA
from featcache.heads.base import Head, HeadSpec
from featcache.heads.gated import CGP
from featcache.heads.layerwise import ATTENTIVE_LAYERS
from featcache.heads.linear import LINEAR, LINEAR_MEAN, MLP
from featcache.heads.options import SIZES, check_options, split_options
from featcache.heads.pooling import LINEARC, MEANMAX, TFMEAN
from featcache.heads.prototypical import PROTO, PROTOBIN, PROTOFLOAT
from featcache.heads.simpool import SIMPOOL
from featcache.heads.standardize import Standardize
from featcache.heads.tokenwise import CONV, LINPRE
from featcache.heads.users import ENTRY_POINTS, described, find, one_class, title_of
from featcache.plugins import entry_point_names

_SPECS = (
    LINEAR, LINEAR_MEAN, MLP, LINEARC, CONV, LINPRE, MEANMAX, TFMEAN, MHCA, EP, SIMPOOL, ABMILP, PROTO,
    PROTOFLOAT, PROTOBIN, ATTENTIVE_LAYERS, CGP,
)  # fmt: skip

HEADS: dict[str, HeadSpec] = {spec.name: spec for spec in _SPECS}
ALIASES = {"attentive": "mhca"}
Named = str | type[Head] | HeadSpec


def register_head(target: type[Head] | HeadSpec, name: str | None = None) -> HeadSpec:
    """Add a head to the table for the rest of this process.

    A class that is defined again (a cell of a notebook that is run again) takes its own former place.

    Args:
        target: a class of heads, or a spec
        name: what it is called; the spec's own name, or the class's in lower case, unless given

    Raises:
        InputError: it is no head, or the name is taken by another one or cannot be written in a choice.
    """
    spec = described(name or title_of(target), target)
    if ":" in spec.name.replace(".py:", "", 1):
        raise InputError(f"a head cannot be named {spec.name!r}: options follow a colon; take another name")
    known = HEADS.get(ALIASES.get(spec.name, spec.name))
    if known is not None and not one_class(known.build, spec.build):
        raise InputError(f"there is a head named {spec.name!r} already; register yours under another name")
    HEADS[spec.name] = spec
    return spec


def head_spec(name: str, *, again: bool = True) -> HeadSpec:
    """What is true of a head before it is built.

    Args:
        name: one of ``HEADS`` or its alias, ``path/to/file.py:Class``, or the name of an entry point
            in the group ``featcache.heads``
        again: run a file again where it has changed since it was run in this process

    Raises:
        InputError: there is no such head; the message has the nearest name.
    """
    name = ALIASES.get(name, name)
    if name in HEADS:
        return HEADS[name]
    target, code = find(name, again=again)
    if target is None:
        raise unknown("head", name, sorted([*HEADS, *ALIASES, *entry_point_names(ENTRY_POINTS)]))
    return described(name, target, code)


def head_names() -> list[str]:
    """The heads of the table, then those of installed packages."""
    return [*HEADS, *sorted(entry_point_names(ENTRY_POINTS) - HEADS.keys())]


def spec_of(head: Named) -> HeadSpec:
    """The spec of a name, or of a class that need not be registered; a spec is what it is."""
    if isinstance(head, str):
        return head_spec(head)
    known = next((spec for spec in HEADS.values() if spec.build is head), None)
    return known or described(title_of(head), head)


def build_head(
    name: Named,
    dim: int,
    num_classes: int,
    *,
    grid: tuple[int, int] | None = None,
    num_layers: int = 1,
    standardize: Standardize = "none",
    **options: Any,
) -> Head:
    """Build a head with fresh weights.

    Args:
        name: as for ``head_spec``; or a class of heads, or a spec
        grid: (F, T) of the token map; heads that read the grid need it.
        num_layers: kept layers, for heads that read them all.
        standardize: "channel" brings each channel of the tokens to zero mean and unit spread; training
            finds the numbers, on the train clips.
        options: of the head itself, e.g. ``per_class=10`` for protobin.

    Raises:
        InputError: no head of that name, an option that it does not have, or a value it cannot take.

    >>> import torch
    >>> build_head("protobin", 8, 3)(torch.randn(2, 5, 8), None, None).shape
    torch.Size([2, 3])
    """
    spec = spec_of(name)
    taken = signature(spec.build).parameters
    sizes = {key: value for key, value in zip(SIZES, (grid, num_layers), strict=True) if key in taken}
    check_options(spec, {**options, "standardize": standardize})
    head = spec.build(dim, num_classes, **sizes, **options)
    if standardize == "channel":
        head.standardize(*([num_layers] if spec.reads == "layers" else []), dim)
        options["standardize"] = standardize
    head.config = {"name": spec.name, "dim": dim, "num_classes": num_classes, **sizes, **options}
    head.reads = spec.reads
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
