"""BirdSet's events: which of a recording count, the window around one, and the pieces of soundscapes."""

import ast
import json
from collections import Counter
from typing import Any

from featcache.errors import InputError

WINDOW = 5.0  # [s] of a test clip, and of the window around an event of a train recording
NOISE = -1  # the cluster of detected events that no other is like


def window_start(begin: float, end: float, total: float) -> float:
    """Where a window around the middle of an event starts; it stays within the recording.

    >>> window_start(10.0, 12.0, 60.0), window_start(0.5, 1.0, 60.0), window_start(59.0, 60.0, 60.0)
    (8.5, 0.0, 55.0)
    """
    return round(max(0.0, min((begin + end) / 2 - WINDOW / 2, total - WINDOW)), 6)


def largest_cluster(events: list[Any], clusters: list[Any]) -> list[tuple[float, float]]:
    """The events that BirdSet keeps of a recording: those of its largest cluster, noise left out.

    Of equal clusters the one with the lowest number counts; a single event is kept though it be noise.

    Source:
        ``XCEventMapping`` in birdset/datamodule/components/event_mapping.py of
        https://github.com/DBD-research-group/BirdSet

    >>> largest_cluster([[0, 1], [2, 3], [4, 5], [6, 7]], [1, 0, -1, 0])
    [(2.0, 3.0), (6.0, 7.0)]
    """
    if len(events) != len(clusters):
        raise InputError(
            f"{len(events)} detected events have {len(clusters)} clusters; the metadata are damaged"
        )
    if len(events) > 1:
        kept = [(event, own) for event, own in zip(events, clusters, strict=True) if own != NOISE]
        counts = Counter(own for _, own in kept)
        best = min(counts, key=lambda own: (-counts[own], own), default=None)
        events = [event for event, own in kept if own == best]
    return [(float(begin), float(end)) for begin, end in events]


def piece(name: str) -> tuple[str, float]:
    """The soundscape of a piece and where it starts in it [s]; a name without offsets is whole.

    >>> piece("UHH_001_S01_20161121_150000_050_055")
    ('UHH_001_S01_20161121_150000', 50.0)
    """
    parts = name.rsplit("_", 2)
    times = [float(part) for part in parts[1:] if part.isdecimal()]
    return (parts[0], times[0]) if len(times) == 2 and times[1] - times[0] == WINDOW else (name, 0.0)


def as_list(value: Any) -> list[Any]:
    """A list, whether it is one or the text of one (JSON's or Python's); nothing is an empty one.

    >>> as_list("['amered', 'gcrfin']"), as_list('["amered"]'), as_list(None), as_list([[0.5, 1.0]])
    (['amered', 'gcrfin'], ['amered'], [], [[0.5, 1.0]])
    """
    if isinstance(value, str) and value.strip():
        for parse in (json.loads, ast.literal_eval):
            try:
                return list(parse(value))
            except (ValueError, SyntaxError, TypeError):
                continue
        raise InputError(f"the metadata have {value!r} where a list was wanted")
    return list(value or [])
