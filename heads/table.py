"""The table of heads: adding one is a file and a row here."""

import math
from collections.abc import Mapping
from inspect import signature
from typing import Any

from featcache.errors import InputError, unknown
from featcache.heads.base import Head, HeadSpec
from featcache.heads.rows import ROWS

HEADS: dict[str, HeadSpec] = {spec.name: spec for spec in ROWS}
ALIASES = {"attentive": "mhca"}


def head_spec(name: str) -> HeadSpec:
    """The row of a head, by its name or alias; an unknown one is an error with the nearest name."""
    name = ALIASES.get(name, name)
    if name not in HEADS:
        raise unknown("head", name, sorted([*HEADS, *ALIASES]))
    return HEADS[name]


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
    sizes: dict[str, Any] = {}
    if spec.ordered:
        sizes["grid"] = grid
    if spec.reads == "layers":
        sizes["num_layers"] = num_layers
    _check_options(spec, options)
    head = spec.build(dim, num_classes, **sizes, **options)
    head.config = {"name": spec.name, "dim": dim, "num_classes": num_classes, **sizes, **options}
    return head


def _check_options(spec: HeadSpec, options: Mapping[str, Any]) -> None:
    """Options are counts (1 or more), shares and weights (0 or more), or yes and no."""
    known = {
        name: parameter.annotation
        for name, parameter in signature(spec.build).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in ("grid", "num_layers")
    }
    for name, value in options.items():
        refused = f"head {spec.name!r} cannot be built with {name}={value!r}: "
        if name not in known:
            raise InputError(f"{refused}its options are {', '.join(known)}")
        kind = known[name]
        if kind is bool:
            wanted, fits = "true or false", isinstance(value, bool)
        elif kind is float:
            wanted = "a number from 0 to below 1" if name == "dropout" else "a number, 0 or more"
            fits = _is_number(value) and value >= 0 and (name != "dropout" or value < 1)
        else:
            wanted, fits = "a whole number, 1 or more", type(value) is int and value >= 1
            fits = fits or (value is None and kind is not int)
        if not fits:
            raise InputError(f"{refused}wanted {wanted}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
