"""What a push or a pull did."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Transferred:
    """Counts of one push or pull."""

    place: str
    shards: int = 0  # now copied
    present: int = 0  # copied earlier
    clips: int = 0  # in both
    num_bytes: int = 0  # now copied
    complete: bool = True  # all of the cache is there
