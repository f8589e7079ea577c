"""What a manifest and its audio hold: labels, splits, lengths; what is missing or there twice."""

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tqdm import tqdm

from featcache.audio.opening import opened
from featcache.errors import AudioError
from featcache.manifest.clip import Clip, Manifest
from featcache.manifest.digests import clip_keys
from featcache.manifest.files import printable


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What the rows of a manifest say."""

    clips: int
    files: int
    unlabelled: int  # clips without a label
    labels: dict[str, int]  # label -> clips, the most frequent first
    splits: dict[str, int]  # split -> clips; "" are those without one
    folds: dict[str, int]

    @property
    def imbalance(self) -> float:
        """Clips of the most frequent label for one of the rarest."""
        return max(self.labels.values()) / min(self.labels.values()) if self.labels else 1.0


@dataclass(frozen=True, kw_only=True)
class Review:
    """What its audio says."""

    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)  # [s] shortest, median and longest clip
    hours: float = 0.0  # [h] all clips together
    rates: dict[int, int] = field(default_factory=dict)  # [Hz] -> files
    unreadable: dict[str, str] = field(default_factory=dict)  # file -> why, missing ones too
    twice: list[list[str]] = field(default_factory=list)  # ids of clips of equal audio
    leaks: list[list[str]] = field(default_factory=list)  # 'id (split)' of one recording in several splits

    @property
    def sound(self) -> bool:
        """Whether all can be read, and nothing is in two splits; copies within a split are allowed."""
        return not self.unreadable and not self.leaks


def contents(manifest: Manifest) -> Contents:
    """Count the rows."""
    clips = manifest.clips
    return Contents(
        clips=len(clips),
        files=len({clip.path for clip in clips}),
        unlabelled=sum(not clip.labels for clip in clips),
        labels=dict(Counter(label for clip in clips for label in clip.labels).most_common()),
        splits=dict(Counter(clip.split or "" for clip in clips)),
        folds=dict(sorted(Counter(clip.fold for clip in clips if clip.fold is not None).items())),
    )


def review(manifest: Manifest, *, progress: bool = False) -> Review:
    """Open every file's header, and read every file to know which are alike."""
    facts: dict[Path, tuple[float, int]] = {}
    unreadable: dict[str, str] = {}
    paths = list(dict.fromkeys(clip.path for clip in manifest))
    for path in tqdm(paths, desc="headers", unit="file", disable=None if progress else True, leave=False):
        try:
            with opened(path) as file:
                facts[path] = (file.frames / file.samplerate, file.samplerate)
        except AudioError as error:
            unreadable[printable(path)] = str(error).removeprefix(f"{printable(path)}: ")
    seconds = sorted(
        (facts[clip.path][0] if clip.end is None else clip.end) - clip.start
        for clip in manifest
        if clip.path in facts
    )
    keys = clip_keys(manifest.clips, progress=progress)
    named = [(key, clip) for key, clip in zip(keys, manifest.clips, strict=True) if key is not None]
    return Review(
        seconds=(seconds[0], median(seconds), seconds[-1]) if seconds else (0.0, 0.0, 0.0),
        hours=sum(seconds) / 3600,
        rates=dict(Counter(rate for _, rate in facts.values()).most_common()),
        unreadable=unreadable,
        twice=[[clip.id for clip in own] for own in _alike(named)],
        leaks=_leaks(named, manifest.clips),
    )


def _alike(named: Iterable[tuple[Hashable, Clip]]) -> list[list[Clip]]:
    """Clips of one key, where there are several."""
    table: dict[Hashable, list[Clip]] = {}
    for key, clip in named:
        table.setdefault(key, []).append(clip)
    return [own for own in table.values() if len(own) > 1]


def _leaks(named: list[tuple[bytes, Clip]], clips: Iterable[Clip]) -> list[list[str]]:
    """Clips of equal audio, of one file or of one group in several splits, or in several folds."""
    grouped = [(clip.group, clip) for clip in clips if clip.group is not None]
    found: dict[tuple[str, ...], list[str]] = {}
    for own in [*_alike(named), *_alike(grouped), *_alike((clip.path, clip) for clip in clips)]:
        for column in ("split", "fold"):
            parts = {getattr(clip, column): clip for clip in own if getattr(clip, column) is not None}
            if len(parts) > 1:
                told = [f"{clip.id} ({column} {part})" for part, clip in parts.items()]
                found.setdefault(tuple(sorted(told)), told)
    return list(found.values())
