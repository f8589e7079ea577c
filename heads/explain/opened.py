"""A saved head with what it was trained on, as far as that is here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from featcache.cache import TokenCache
from featcache.cache.read.join import join
from featcache.errors import FeatcacheError, InputError, MismatchError
from featcache.heads.base import Head, Inputs
from featcache.heads.checkpoint import load, load_config
from featcache.heads.data.batch import Batch, Need
from featcache.heads.report.results import digest_of, read_results
from featcache.manifest import Clip, load_manifest
from featcache.manifest.events import Event, events_file, read_events


@dataclass(kw_only=True)
class Opened:
    """What a page can be made of.

    Attributes:
        cache: None where it is gone: then the head alone can be shown
        clips: of the manifest, by id; those that the cache has
        column_seconds: [s] between token columns
        notes: what is missing, in sentences
    """

    head: Head
    config: Mapping[str, Any]
    path: Path
    cache: TokenCache | None
    clips: dict[str, Clip] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    events: Mapping[str, Sequence[Event]] = field(default_factory=dict)
    column_seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Names of the head's classes."""
        names: list[str] = self.config["class_names"]
        return names

    def ids(self, split: str) -> list[str]:
        """The clips of a split that the manifest gives; all but those, as train, where it gives none."""
        given = [name for name, clip in self.clips.items() if clip.split == split]
        fold = self.config.get("fold")
        if fold is not None:
            given = [name for name, clip in self.clips.items() if (clip.fold == fold) == (split == "test")]
        return given

    def inputs(self, clip: str) -> Inputs:
        """What the head reads of one clip."""
        assert self.cache is not None  # asked by the caller
        cache, row = self.cache, [self.rows[clip]]
        layers = cache.layers if self.head.reads == "layers" else (self.config["layer"],)
        parts: dict[Need, Tensor] = {}
        for layer in layers:
            parts["tokens", layer] = cache.tokens(row, layer).float()
            parts["mean", layer] = cache.mean(row, layer)
            if (cls := cache.cls(row, layer)) is not None:
                parts["cls", layer] = cls
        audio = cache.mask(row)
        batch = Batch(parts, {}, audio, not bool(audio.all()), "float32")
        return batch.inputs(self.head.reads, layers, layers[-1], cache.has_cls)


def open_head(
    source: str | Path,
    *,
    manifest: str | Path | None = None,
    cache: str | Path | None = None,
    audio_roots: Mapping[str, str] | None = None,
    column_seconds: float | None = None,
) -> Opened:
    """A saved head, or the last result in a folder of results, with its cache and manifest.

    Args:
        manifest: of clips to show; the one that was probed unless given
        cache: where it lies now
        audio_roots: beginning of a path -> what it is now
        column_seconds: [s] between token columns, where the cache does not say

    Raises:
        InputError: no head that a probe saved.
        MismatchError: the cache holds other tokens.
    """
    path = _head_file(Path(source))
    config = load_config(path)
    if not config.get("class_names") or "cache" not in config:
        raise InputError(
            f"{path} does not say what it was trained on; wanted a head that 'featcache probe' saved"
        )
    own = Opened(head=load(path), config=config, path=path, cache=None)
    where = Path(cache or config["cache"]["path"])
    try:
        own.cache = TokenCache.open(where)
    except FeatcacheError as error:
        if cache is not None:
            raise
        own.notes.append(
            f"The cache is not here ({error}), so no clip can be shown; say where it is with --cache."
        )
        return own
    if digest_of(own.cache.fingerprint) != config["cache"]["digest"]:
        raise MismatchError(f"{where} holds other tokens than {path} was trained on; name its cache")
    grid = own.cache.grid
    stored = own.cache.attributes.get("column_seconds")
    shared = float(own.cache.fingerprint.get("clip_seconds") or grid[1]) / grid[1]
    own.column_seconds = column_seconds or stored or shared
    _join(own, Path(manifest or config["manifest"]["path"]), audio_roots or {}, given=manifest is not None)
    return own


def _head_file(source: Path) -> Path:
    if source.is_dir():
        heads = [result for result in read_results([source]) if "head" in result["files"]]
        if not heads:
            raise InputError(f"no result in {source} has a saved head; solved ones have none")
        return heads[-1].file("head")
    return source


def _join(own: Opened, path: Path, roots: Mapping[str, str], *, given: bool) -> None:
    assert own.cache is not None  # set by the caller
    try:
        clips = load_manifest(path)
    except FeatcacheError as error:
        if given:
            raise
        own.notes.append(
            f"The manifest is not here ({error}), so no clip can be shown; name one with --manifest."
        )
        return
    moved = replace(clips, clips=tuple(_moved(clip, roots) for clip in clips))
    for clip, row in join(own.cache, moved, lambda line: None):
        own.clips[clip.id], own.rows[clip.id] = clip, row
    events = events_file(path)
    if events.is_file():
        own.events = read_events(events)
    missing = sum(not clip.path.exists() for clip in own.clips.values())
    if missing:
        own.notes.append(
            f"The audio of {missing:,} of {len(own.clips):,} clips is not where the manifest says: their "
            "sound and spectrograms are left out. --audio-root OLD=NEW says where it is now."
        )


def _moved(clip: Clip, roots: Mapping[str, str]) -> Clip:
    for old, new in roots.items():
        if str(clip.path).startswith(old):
            return replace(clip, path=Path(new + str(clip.path)[len(old) :]))
    return clip
