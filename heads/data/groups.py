"""Which clips are of one recording: what one split holds of it, another must not.

Windows of one file are alike, and so is one sound under two names: a head that has trained on the
one knows the other, and its test score says less than it seems to.
"""

import os
from collections.abc import Hashable, Sequence
from pathlib import Path

from featcache.cache.read.join import Say
from featcache.errors import InputError
from featcache.manifest import Clip


def groups_of(clips: Sequence[Clip], keys: Sequence[Hashable]) -> list[int]:
    """A number for each clip; clips have the same one where they are of one recording.

    Clips belong together that share a file, equal audio or the manifest's column ``group``, and so
    do clips that a chain of these joins.

    Args:
        keys: of each clip's audio, equal where the audio is

    >>> clips = [Clip(id=i, path=Path(p), group=g) for i, p, g in
    ...     [("a", "1.wav", None), ("b", "1.wav", "site"), ("c", "2.wav", "site"), ("d", "3.wav", None)]]
    >>> groups_of(clips, keys=[b"1", b"2", b"3", b"4"])
    [0, 0, 0, 1]
    """
    parent: dict[Hashable, Hashable] = {}

    def root(node: Hashable) -> Hashable:
        while (above := parent.setdefault(node, node)) != node:
            parent[node] = parent[above]
            node = above
        return node

    files = {path: os.path.abspath(path) for path in {clip.path for clip in clips}}
    for clip, key in zip(clips, keys, strict=True):
        own = root(("file", files[clip.path]))
        for node in (("audio", key), *([("group", clip.group)] if clip.group is not None else [])):
            parent[root(node)] = own
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(("file", files[clip.path])), len(numbers)) for clip in clips]


def refuse_leaks(
    source: Path,
    clips: Sequence[Clip],
    groups: Sequence[int],
    column: str,
    *,
    allow: bool,
    say: Say,
) -> None:
    """Hold the column ``split`` or ``fold`` of a manifest to keeping recordings whole.

    Args:
        source: the manifest, for the message
        allow: say it and go on

    Raises:
        InputError: a recording has clips in more than one part.
    """
    parts: dict[int, dict[str, Clip]] = {}  # recording -> a clip of it in each part
    for clip, group in zip(clips, groups, strict=True):
        part = getattr(clip, column)
        if part is not None:
            parts.setdefault(group, {}).setdefault(part, clip)
    torn = [own for own in parts.values() if len(own) > 1]
    if not torn:
        return
    rows = ", ".join(f"{clip.id!r} in {column} {part!r}" for part, clip in [*torn[0].items()][:3])
    found = f"{source}: {len(torn)} recording(s) lie in more than one {column}, as {rows}"
    if allow:
        say(f"{found}; this leak is allowed: scores are better than they would be on new recordings")
        return
    raise InputError(
        f"{found}; clips of one file, of equal audio or of one 'group' belong together: correct the column "
        f"{column!r}, leave it out, or allow the leak",
        options=("allow_leak",),
    )
