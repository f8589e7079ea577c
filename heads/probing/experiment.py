"""A cache joined with a manifest: the questions, and what every trial of them shares."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from featcache.cache.read.join import Say, join
from featcache.errors import InputError, unknown
from featcache.heads.data.batch import Need, needs_of
from featcache.heads.data.source import DeviceCache, Source, clip_bytes
from featcache.heads.data.tasks import Kind, Question, Shots, Task, questions
from featcache.heads.report.results import digest_of
from featcache.heads.training.trial import Trial
from featcache.manifest import Manifest, load_manifest
from featcache.records import last_dataset, last_manifest

if TYPE_CHECKING:
    from featcache.cache import TokenCache


@dataclass(frozen=True)
class Experiment:
    """One cache and the questions that are put to it."""

    cache: "TokenCache"
    manifests: tuple[Manifest, ...]
    questions: tuple[Question, ...]
    device: torch.device
    device_cache: DeviceCache = "auto"
    audio: Mapping[str, str] = field(
        default_factory=dict
    )  # of each manifest's digest: that of its clips' audio

    @property
    def tasks(self) -> list[Task]:
        """What training may see: no test labels."""
        return [question.task for question in self.questions]

    def manifest_of(self, task: Task) -> Manifest:
        """The manifest that a task comes from."""
        return next(manifest for manifest in self.manifests if manifest.digest == task.digest)

    def source(self, trials: Sequence[Trial], *, test: bool = False) -> Source:
        """A reader of what these trials need, over train and valid, or over test."""
        rows = [
            part
            for question in self.questions
            for part in (
                [question.test.rows] if test else [question.task.train.rows, question.task.valid.rows]
            )
        ]
        return Source(self.cache, self.needs(trials), np.concatenate(rows), self.device, self.device_cache)

    def needs(self, trials: Sequence[Trial]) -> set[Need]:
        """What of a clip these trials read."""
        layers, has_cls = self.cache.layers, self.cache.has_cls
        return {need for trial in trials for need in needs_of(trial.spec.reads, layers, trial.layer, has_cls)}

    def read_bytes(self, trial: Trial, epochs: int, passes: int) -> int:
        """[bytes] of the cache that a head alone would read in so many epochs, of ``passes`` each."""
        task, needs = self.tasks[trial.task], self.needs([trial])
        maps = sum(name == "tokens" for name, _ in needs)
        own = maps * clip_bytes(self.cache) + (len(needs) - maps) * self.cache.dim * 4  # vectors: float32
        return epochs * (passes * len(task.train) + len(task.valid)) * own

    @cached_property
    def digest(self) -> str:
        """Of the tokens and the questions: which clips, in which split, of which cache."""
        keys = np.asarray(self.cache.keys)
        splits = [
            [keys[rows].tobytes().hex() for rows in (task.train.rows, task.valid.rows, test.rows)]
            for task, test in ((question.task, question.test) for question in self.questions)
        ]
        digests = [manifest.digest for manifest in self.manifests]
        history = [self.converted] if self.converted else []
        return digest_of([self.cache.fingerprint, self.cache.dtype, digests, splits, *history])

    @cached_property
    def converted(self) -> list[str]:
        """The storage dtypes that the tokens went through before the cache's own, latest first."""
        dtypes, parent = [self.cache.dtype], self.cache.attributes.get("parent")
        while isinstance(parent, Mapping):
            dtypes.append(str(parent.get("dtype")))
            parent = parent.get("parent")
        return [own for own, later in zip(dtypes[1:], dtypes, strict=False) if own != later]


def open_experiment(
    cache: "TokenCache | str | Path",
    manifests: Sequence[Manifest | str | Path],
    *,
    device: torch.device,
    say: Say,
    folds: bool = False,
    kind: Kind | None = None,
    device_cache: DeviceCache = "auto",
    seed: int = 0,
    shots: Shots = ("all",),
    allow_leak: bool = False,
    progress: bool = False,
    verify: bool = True,
) -> Experiment:
    """Open the cache and join it with each manifest, or with the one it was last extracted from.

    Args:
        verify: compare files of tokens with their checksums before they are read

    Raises:
        MissingError: no such cache or manifest.
        InputError: as ``join`` and ``questions``.
    """
    from featcache.cache import TokenCache

    store = cache if isinstance(cache, TokenCache) else TokenCache.open(cache)
    store.checked |= verify
    if not len(store):
        raise InputError(f"the cache {store.path} holds no finished clip; run 'featcache extract' again")
    found = [
        manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
        for manifest in manifests or [_remembered(store, say)]
    ]
    asked, audio, keys = [], {}, np.asarray(store.keys)
    for manifest in found:
        joined = join(store, manifest, say, progress=progress)
        own = [key.tobytes() for key in keys[[row for _, row in joined]]]
        audio[manifest.digest] = hashlib.blake2b(b"".join(sorted(own)), digest_size=8).hexdigest()
        asked += questions(
            manifest, joined, name=manifest.title, say=say, folds=folds, kind=kind, seed=seed, shots=shots,
            allow_leak=allow_leak, keys=own,
        )  # fmt: skip
    return Experiment(store, tuple(found), tuple(asked), device, device_cache, audio)


def choose_layers(cache: "TokenCache", layers: Sequence[int] | None) -> list[int]:
    """The layers to probe: the last kept one unless told otherwise.

    Raises:
        InputError: a layer that the cache does not keep.
    """
    for layer in layers or ():
        if layer not in cache.layers:
            raise unknown(f"layer in {cache.path}", str(layer), [str(known) for known in cache.layers])
    return list(layers or [max(cache.layers)])


def _remembered(cache: "TokenCache", say: Say) -> Manifest:
    path = last_manifest(cache.path)
    if path is None:
        raise InputError(f"{cache.path} does not remember a manifest; name one", options=("manifests",))
    say(f"manifest: {path} (the one that {cache.path} was last extracted from)")
    return replace(load_manifest(path), name=last_dataset(cache.path))
