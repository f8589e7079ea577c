"""The table of heads: adding one is a file and a row here."""

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
        InputError: no head of that name, or an option that it does not have.

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
    try:
        head = spec.build(dim, num_classes, **sizes, **options)
    except TypeError as error:
        raise InputError(f"head {spec.name!r} cannot be built with {options}: {error}") from error
    head.config = {"name": spec.name, "dim": dim, "num_classes": num_classes, **sizes, **options}
    return head
