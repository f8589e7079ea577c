"""Long recordings as a run of windows, each a clip of its own."""

import math
from collections.abc import Sequence
from dataclasses import replace

from featcache.manifest import Clip


def window(clips: Sequence[Clip], seconds: Sequence[float], *, length: float, hop: float) -> list[Clip]:
    """Split clips longer than ``length`` into windows; every window keeps its clip's labels.

    The last window starts where less than a hop remains and may be shorter than ``length``.

    Args:
        seconds: [s] length of each clip's segment
        length, hop: [s] of a window, and between window starts

    >>> from pathlib import Path
    >>> clip = Clip(id="a", path=Path("a.wav"))
    >>> [(w.id, w.start, w.end) for w in window([clip], [25.0], length=10.0, hop=10.0)]
    [('a@0-10', 0.0, 10.0), ('a@10-20', 10.0, 20.0), ('a@20-25', 20.0, 25.0)]
    """
    windows: list[Clip] = []
    for clip, total in zip(clips, seconds, strict=True):
        if total <= length:
            windows.append(clip)
            continue
        count = 1 + math.ceil(round((total - length) / hop, 6))
        for index in range(count):
            start = round(clip.start + index * hop, 6)
            end = round(min(start + length, clip.start + total), 6)
            windows.append(replace(clip, id=f"{clip.id}@{start:g}-{end:g}", start=start, end=end))
    return windows
