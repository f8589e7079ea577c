"""What a page is about: a saved head, and of its cache, clips and audio what is still there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featcache.errors import FeatcacheError, InputError, MissingError
from featcache.heads.base import Head
from featcache.heads.checkpoint import load, load_config
from featcache.heads.data.tasks import Part, Question
from featcache.heads.probing.experiment import open_experiment
from featcache.heads.report.results import RESULTS, read_results
from featcache.manifest import Clip, Manifest, load_manifest
from featcache.manifest.events import Event, events_file, read_events

if TYPE_CHECKING:
    from featcache.cache import TokenCache

FRAME_SECONDS = 0.01  # [s] of Kaldi's filter banks


@dataclass(frozen=True, kw_only=True)
class Clips:
    """The clips that a head was trained and tested on, in its cache."""

    cache: "TokenCache"
    layer: int
    by_row: Mapping[int, Clip]
    train: Part
    valid: Part
    test: Part
    num_classes: int
    events: Mapping[str, list[Event]] = field(default_factory=dict)  # by clip id

    @cached_property
    def column_seconds(self) -> float:
        """[s] between token columns, as near as the cache's own record says."""
        if isinstance(stored := self.cache.attributes.get("column_seconds"), float):
            return stored
        settings = self.cache.fingerprint
        shape = settings.get("settings") or {}
        given = shape.get("input") or {} if isinstance(shape, dict) else {}
        T = self.cache.grid[1]
        if isinstance(given, dict) and "fbank" in given and isinstance(given.get("frames"), int):
            return float(given["frames"] * FRAME_SECONDS / T)
        return float(settings.get("clip_seconds") or T) / T

    @property
    def sample_rate(self) -> int:
        """[Hz] at which the encoder hears."""
        audio = self.cache.fingerprint.get("audio") or {}
        return int(audio.get("sample_rate") or 16_000)

    def targets(self, part: Part) -> "np.ndarray[Any, Any]":
        """Labels of a part, (n, C) bool."""
        if part.targets.ndim == 2:
            return part.targets.astype(bool)
        return np.eye(self.num_classes, dtype=bool)[part.targets.astype(np.int64)]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A saved head, and its clips where they could be found."""

    path: Path
    head: Head
    config: Mapping[str, Any]
    clips: Clips | None
    notes: tuple[str, ...]  # what is missing, in words for a reader of the page

    @property
    def classes(self) -> list[str]:
        names: list[str] = list(self.config["class_names"])
        return names


def open_subject(
    path: Path, manifest: Path | None = None, audio_roots: Mapping[str, str] | None = None
) -> Subject:
    """A head's file, or of a results folder or file the best head.

    Of several results it is the best on valid among heads of prototypes, else among all.

    Args:
        manifest: in place of the one that the head was trained on
        audio_roots: beginnings of audio paths, and what stands there on this machine

    Raises:
        MissingError: there is no such file.
        InputError: it is no head of ``featcache probe``, or the manifest does not fit its cache.
    """
    file = _head_file(path)
    head, config = load(file), load_config(file)
    if not isinstance(config.get("class_names"), list):
        raise InputError(f"{file} does not name its classes; wanted a head that 'featcache probe' saved")
    try:
        clips, notes = _clips(config, manifest, audio_roots or {})
    except FeatcacheError as error:
        if manifest is not None or audio_roots:
            raise
        clips, notes = None, [f"Shown is what the head's file alone says: {error}"]
    return Subject(path=file, head=head.eval(), config=config, clips=clips, notes=tuple(notes))


def _head_file(path: Path) -> Path:
    if not path.exists():
        raise MissingError(f"neither a head nor results at {path}; make some with 'featcache probe CACHE'")
    if not (path.is_dir() or path.name == RESULTS or path.suffix == ".jsonl"):
        return path
    results = [own for own in read_results([path]) if (own.get("files") or {}).get("head")]
    if not results:
        raise InputError(f"{path} lists no saved head; name a head's file, or probe again")
    prototypes = [own for own in results if str(own["head"]).startswith("proto")]

    def score(result: Any) -> float:
        value = (result["valid"] or {}).get(result["metric"])
        return -1.0 if value is None else float(value)

    return max(prototypes or results, key=score).file("head")


def _clips(config: Mapping[str, Any], path: Path | None, roots: Mapping[str, str]) -> tuple[Clips, list[str]]:
    from featcache.cache import TokenCache

    place = (config.get("cache") or {}).get("path")
    manifest_path = path or Path((config.get("manifest") or {}).get("path") or "")
    if place is None:
        raise InputError("the head does not say of which cache it is")
    cache = TokenCache.open(place)
    if not manifest_path.exists() or not str(manifest_path):
        raise MissingError(f"no manifest at {manifest_path}; name one", options=("manifest",))
    manifest = moved(load_manifest(manifest_path), roots)
    notes: list[str] = []
    question = _question(cache, manifest, config, notes)
    known = {clip.id: clip for clip in manifest}
    test = question.test.open()
    rows = {
        int(row): known[name]
        for part in (question.task.train, test)
        for row, name in zip(part.rows, part.ids, strict=True)
    }
    absent = sum(not clip.path.is_file() for clip in rows.values())
    if absent:
        notes.append(
            f"The audio of {absent} of {len(rows)} clips is not on this machine: they have no spectrogram "
            "and no sound here. Where it has moved, audio_roots says."
        )
    events = events_file(manifest_path)
    own_events = read_events(events) if events.is_file() else {}
    layer = int(config.get("layer", max(cache.layers)))
    return Clips(
        cache=cache,
        layer=layer,
        by_row=rows,
        train=question.task.train,
        valid=question.task.valid,
        test=test,
        events=own_events,
        num_classes=len(config["class_names"]),
    ), notes


def _question(
    cache: "TokenCache", manifest: Manifest, config: Mapping[str, Any], notes: list[str]
) -> Question:
    """The question that the head was trained for: same splits, same classes."""
    fold, shots = config.get("fold"), config.get("shots")
    experiment = open_experiment(
        cache, [manifest], device=torch.device("cpu"), say=lambda line: None, folds=fold is not None,
        kind=config.get("task"), shots=[shots or "all"], allow_leak=True, verify=False,
        seed=int((config.get("training") or {}).get("seed") or 0),
    )  # fmt: skip
    found = next((own for own in experiment.questions if own.task.fold == fold), None)
    if found is None or list(found.task.classes) != config["class_names"]:
        raise InputError(
            f"{manifest.path} has other classes or folds than the head; give the one of its training",
            options=("manifest",),
        )
    if manifest.digest != (config.get("manifest") or {}).get("digest"):
        notes.append(
            "The manifest is not the one that the head was trained on: its train clips may be others."
        )
    return found


def moved(manifest: Manifest, roots: Mapping[str, str]) -> Manifest:
    """A manifest whose audio lies elsewhere.

    Raises:
        InputError: no clip lies at the old place.
    """
    for old in roots:
        if not any(clip.path.is_relative_to(old) for clip in manifest):
            at = manifest.clips[0].path.parent if manifest.clips else "no place"
            raise InputError(
                f"no audio of {manifest.path} lies in {old}; it lies in {at}", options=("audio_root",)
            )
    return replace(manifest, clips=tuple(replace(clip, path=_moved(clip.path, roots)) for clip in manifest))


def _moved(path: Path, roots: Mapping[str, str]) -> Path:
    for old, new in roots.items():
        if path.is_relative_to(old):
            return Path(new) / path.relative_to(old)
    return path
