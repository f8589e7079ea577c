"""The questions of a probe: which rows of a cache train, select and test which labels.

A cache knows no labels; here a manifest is joined with it. The labels of the test split are
sealed: training and search receive a ``Task``, which has none, and ``Sealed.open`` is called
once, when everything has been chosen.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featcache.cache.read.join import Say
from featcache.errors import InputError
from featcache.heads.data.splits import fold_names, hold_out, splits_of
from featcache.manifest import Clip, Manifest

Kind = Literal["multi-label", "single-label"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The clips of one split: rows of the cache and their labels."""

    rows: NDArray[np.int64]  # (n,)
    targets: NDArray[np.generic]  # (n, C) uint8 where multi-label, (n,) int64 where single-label
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question to a frozen encoder, as training sees it: no test labels."""

    name: str  # of the manifest
    digest: str  # of the manifest
    kind: Kind
    classes: tuple[str, ...]
    train: Part
    valid: Part
    fold: str | None = None  # the fold that is test, in cross-validation

    @property
    def title(self) -> str:
        return self.name if self.fold is None else f"{self.name} fold {self.fold}"

    @property
    def metric(self) -> str:
        """What selects and is reported first."""
        return "mAP" if self.kind == "multi-label" else "accuracy"


@dataclass(frozen=True)
class Sealed:
    """A test split that gives its labels only when asked to by name."""

    rows: NDArray[np.int64]  # (n,)
    _read: Callable[[], Part] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def open(self) -> Part:
        """The test labels: to be called once, after everything has been chosen."""
        return self._read()


@dataclass(frozen=True)
class Question:
    """What is trained and what it is tested on."""

    task: Task
    test: Sealed


def questions(
    manifest: Manifest,
    joined: Sequence[tuple[Clip, int]],
    *,
    name: str,
    say: Say,
    folds: bool = False,
    kind: Kind | None = None,
    seed: int = 0,
) -> list[Question]:
    """One question, or one a fold, out of clips and their rows in the cache.

    Args:
        joined: clips with their rows, as ``join`` gives them
        kind: the type of task; None decides by the labels (each clip has exactly one or not)
        seed: of the tenth held out where the manifest has no valid split

    Raises:
        InputError: an empty train split, a label that train lacks, folds without a fold column.
    """
    clips = [clip for clip, _ in joined]
    kind = kind or _kind(clips)
    if kind == "single-label" and (odd := next((clip for clip in clips if len(clip.labels) != 1), None)):
        raise InputError(
            f"clip {odd.id!r} has {len(odd.labels)} labels, and a single-label task wants exactly one; "
            "leave the task to the labels, or say multi-label",
            options=("task",),
        )
    names = fold_names(clips) if folds else [None]
    found = []
    for fold in names:
        split = splits_of(clips, fold=fold, seed=seed, say=say if fold == names[0] else _hush)
        found.append(_question(manifest, joined, split, name=name, kind=kind, fold=fold, seed=seed, say=say))
    return found


def _question(
    manifest: Manifest,
    joined: Sequence[tuple[Clip, int]],
    split: Sequence[str | None],
    *,
    name: str,
    kind: Kind,
    fold: str | None,
    seed: int,
    say: Say,
) -> Question:
    chosen = {part: [pair for pair, s in zip(joined, split, strict=True) if s == part] for part in _PARTS}
    if not chosen["train"]:
        raise InputError(f"{manifest.path} has no clip to train on; give some rows the split 'train'")
    classes = tuple(sorted({label for clip, _ in chosen["train"] for label in clip.labels}))
    _check_labels(manifest, classes, chosen)
    if not chosen["valid"]:
        chosen["train"], chosen["valid"] = hold_out(chosen["train"], 0.1, seed, lambda pair: pair[0].labels)
        where = "" if fold is None else f" of fold {fold}"
        say(
            f"{name}: no valid split{where}; {len(chosen['valid'])} of the train clips (a stratified tenth, "
            f"seed {seed}) are held out to select on, {len(chosen['train'])} train"
        )
    parts = {part: _part(chosen[part], classes, kind) for part in ("train", "valid")}
    task = Task(name=name, digest=manifest.digest, kind=kind, classes=classes, fold=fold, **parts)
    rows = np.array([row for _, row in chosen["test"]], dtype=np.int64)
    return Question(task, Sealed(rows, lambda: _part(chosen["test"], classes, kind)))


_PARTS = ("train", "valid", "test")


def _part(pairs: Sequence[tuple[Clip, int]], classes: Sequence[str], kind: Kind) -> Part:
    index = {label: position for position, label in enumerate(classes)}
    if kind == "single-label":
        targets: NDArray[np.generic] = np.array([index[clip.labels[0]] for clip, _ in pairs], dtype=np.int64)
    else:
        targets = np.zeros((len(pairs), len(classes)), dtype=np.uint8)
        for position, (clip, _) in enumerate(pairs):
            targets[position, [index[label] for label in clip.labels]] = 1
    rows = np.array([row for _, row in pairs], dtype=np.int64)
    return Part(rows=rows, targets=targets, ids=tuple(clip.id for clip, _ in pairs))


def _kind(clips: Iterable[Clip]) -> Kind:
    return "single-label" if all(len(clip.labels) == 1 for clip in clips) else "multi-label"


def _check_labels(
    manifest: Manifest, classes: Sequence[str], chosen: dict[str, list[tuple[Clip, int]]]
) -> None:
    for part in ("valid", "test"):
        unseen = sorted({label for clip, _ in chosen[part] for label in clip.labels} - set(classes))
        if unseen:
            names = ", ".join(map(repr, unseen[:3])) + (" …" if len(unseen) > 3 else "")
            raise InputError(
                f"{manifest.path}: {len(unseen)} label(s) in {part} but not in train: {names}; "
                "no head can learn them: move clips to train or drop the label"
            )


def _hush(line: str) -> None:
    """Say nothing: a second fold has nothing new to tell."""
