"""Long recordings as a run of windows, each a clip of its own."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from featcache.audio.load import END_SLACK, duration
from featcache.errors import AudioError, InputError
from featcache.manifest.clip import Clip, Manifest, seconds_text
from featcache.manifest.events import Event

# Of one clip: eleven days at a hop of a second. A list of more takes gigabytes.
MOST_WINDOWS = 1_000_000


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


def events_in_windows(events: Iterable[Event], clips: Iterable[Clip], windows: Iterable[Clip]) -> list[Event]:
    """Events of clips as events of the windows that these were split into, cut at their ends.

    Args:
        clips: before they were split
        windows: as `window` makes them of these

    >>> long = Clip(id="a", path=Path("a.wav"))
    >>> parts = window([long], [20.0], length=10.0, hop=10.0)
    >>> [(e.id, e.start, e.end) for e in events_in_windows(
    ...     [Event(id="a", start=8.0, end=12.5, label="x")], [long], parts)]
    [('a@0-10', 8.0, 10.0), ('a@10-20', 0.0, 2.5)]
    """
    starts = {clip.id: clip.start for clip in clips}
    own: dict[str, list[Event]] = {}
    for event in events:
        own.setdefault(event.id, []).append(event)
    found = []
    for part in windows:
        id = part.id if part.id in starts else part.id.rpartition("@")[0]
        offset = part.start - starts[id]
        length = math.inf if part.end is None else part.end - part.start
        for event in own.get(id, ()):
            start, end = max(0.0, event.start - offset), min(length, event.end - offset)
            if start < end:
                found.append(Event(id=part.id, start=round(start, 6), end=round(end, 6), label=event.label))
    return found


def window_manifest(
    manifest: Manifest, length: float, hop: float | None = None, *, accept_truncated: bool = False
) -> Manifest:
    """A manifest whose clips are at most ``length`` long; the lengths of files are read from their headers.

    Args:
        length, hop: [s] of a window, and between window starts (the length unless given)

    A clip whose file cannot be read, or that goes past its end, stays one clip: decoding says why.

    Raises:
        InputError: a length or hop that is not above 0, or one clip would be too many windows.
    """
    if not length > 0 or not (hop is None or hop > 0):
        raise InputError(f"window {length:g} s and hop {hop} s must be above 0")
    hop = hop or length
    files = {
        path: _length(path, accept_truncated) for path in dict.fromkeys(clip.path for clip in manifest.clips)
    }
    seconds = [_seconds(clip, files[clip.path]) for clip in manifest.clips]
    for clip, total in zip(manifest.clips, seconds, strict=True):
        if (total - length) / hop >= MOST_WINDOWS:
            raise InputError(
                f"clip {clip.id!r} of {total:,.0f} s would be more than {MOST_WINDOWS:,} windows; take a "
                "longer hop, or give the recording as several clips with start and end",
                options=("hop_seconds",),
            )
    windows = window(manifest.clips, seconds, length=length, hop=hop)
    windowed = Manifest(tuple(windows), manifest.path)
    windowed.require_own_ids()
    return windowed


def _seconds(clip: Clip, file: float) -> float:
    """[s] of a clip in a file of so many seconds; zero where it goes past its end."""
    if clip.end is not None and clip.end > file + END_SLACK:
        return 0.0
    return min(file, math.inf if clip.end is None else clip.end) - clip.start


def _length(path: Path, accept_truncated: bool) -> float:
    """[s] of a file; zero of one that cannot be read, which decoding will name."""
    try:
        return duration(path, accept_truncated=accept_truncated)
    except AudioError:
        return 0.0
