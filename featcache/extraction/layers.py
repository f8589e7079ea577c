"""Which of an encoder's layers are kept, as people write it."""

from collections.abc import Sequence

from featcache.errors import InputError


def parse_layers(layers: str | Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The layers to keep, in order: ``None``, ``"all"``, ``"1-12"``, ``"6,12"`` or numbers.

    >>> parse_layers("1-3,12", 12)
    (1, 2, 3, 12)
    """
    if layers is None:
        return (depth,)
    if layers == "all":
        return tuple(range(1, depth + 1)) or (depth,)
    wanted: set[int] = set()
    try:
        for part in layers.split(",") if isinstance(layers, str) else map(str, layers):
            first, _, last = part.partition("-")
            begin, end = int(first), int(last or first)
            # The ends first: a range of billions is not to be made before it is refused.
            wanted.update((begin, end) if max(begin, end) > depth else range(begin, end + 1))
    except ValueError:
        raise InputError(f"layers {layers!r} not understood; wanted all, 12, 1-12 or 6,12") from None
    lowest = min(1, depth)
    if not wanted or min(wanted) < lowest or max(wanted) > depth:
        raise InputError(f"layers {layers!r}: this encoder has layers {lowest} to {depth}")
    return tuple(sorted(wanted))
