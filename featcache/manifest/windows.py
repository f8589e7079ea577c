"""Long recordings as a run of windows, each a clip of its own."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featcache.audio.load import duration
from featcache.errors import AudioError, InputError
from featcache.manifest.clip import Clip, Manifest, seconds_text


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
            name = f"{clip.id}@{seconds_text(start)}-{seconds_text(end)}"
            windows.append(replace(clip, id=name, start=start, end=end))
    return windows


def window_manifest(manifest: Manifest, length: float, hop: float | None = None) -> Manifest:
    """A manifest whose clips are at most ``length`` long; the lengths of files are read from their headers.

    Args:
        length, hop: [s] of a window, and between window starts (the length unless given)

    Raises:
        InputError: a length or hop that is not above 0.
    """
    if not length > 0 or not (hop is None or hop > 0):
        raise InputError(f"window {length:g} s and hop {hop} s must be above 0")
    files = {clip.path: _length(clip.path) for clip in manifest.clips}
    seconds = [(files[clip.path] if clip.end is None else clip.end) - clip.start for clip in manifest.clips]
    windows = window(manifest.clips, seconds, length=length, hop=hop or length)
    windowed = Manifest(tuple(windows), manifest.path)
    windowed.require_own_ids()
    return windowed


def _length(path: Path) -> float:
    """[s] of a file; zero of one that cannot be read, which decoding will name."""
    try:
        return duration(path)
    except AudioError:
        return 0.0
