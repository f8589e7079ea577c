"""The questions of a probe: which rows of a cache train, select and test which labels.

A cache knows no labels; here a manifest is joined with it. The labels of the test split are
sealed: training and search receive a ``Task``, which has none, and ``Sealed.open`` is called
once, when everything has been chosen.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featcache.cache.read.join import Say
from featcache.errors import InputError
from featcache.heads.data.checks import check_labels, check_valid, say_doubts, say_short
from featcache.heads.data.groups import groups_of, refuse_leaks
from featcache.heads.data.shots import draw_shots
from featcache.heads.data.splits import (
    fold_names,
    hold_out,
    set_aside_variants,
    splits_of,
    with_whole_variants,
)
from featcache.manifest import Clip, Manifest

Kind = Literal["multi-label", "single-label"]
Shots = Sequence[int | Literal["all"]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """The clips of one split: rows of the cache and their labels."""

    rows: NDArray[np.int64]  # (n,)
    targets: NDArray[np.generic]  # (n, C) uint8 where multi-label, (n,) int64 where single-label
    ids: tuple[str, ...]
    groups: tuple[str, ...] = ()  # the recording of each clip, by the id of its first one here

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
    shots: int | None = None  # train clips of each class; None is all
    pool: int | None = None  # train clips that the shots are drawn from
    draw: int | None = None  # the seed of the splits, or shots, that were drawn; None where none were

    @property
    def title(self) -> str:
        fold = "" if self.fold is None else f" fold {self.fold}"
        return self.name + fold + ("" if self.shots is None else f" {self.shots}-shot")

    @property
    def key(self) -> list[str | int | None]:
        """What tells the tasks of one manifest apart."""
        return [self.name, self.fold, *([] if self.shots is None else [self.shots])]

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
    keys: Sequence[Hashable] | None = None,
    folds: bool = False,
    kind: Kind | None = None,
    seed: int = 0,
    shots: Shots = ("all",),
    allow_leak: bool = False,
) -> list[Question]:
    """One question out of clips and their rows in the cache; one for each fold and number of shots.

    Args:
        joined: clips with their rows, as ``join`` gives them
        keys: of each clip's audio, equal where the audio is; its row unless given
        kind: the type of task; None decides by the labels (each clip has exactly one or not)
        seed: of what is drawn: splits that the manifest lacks, and shots
        shots: train clips of each class
        allow_leak: take splits and folds of the manifest that tear a recording

    Raises:
        InputError: an empty train split, a label that train lacks, folds without a fold column, a
            recording in two splits or folds, nothing to tell apart, too few clips to choose on.
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
    groups = groups_of(clips, keys or [row for _, row in joined])
    refuse_leaks(manifest.path, clips, groups, "fold" if folds else "split", allow=allow_leak, say=say)
    found, splits = [], []
    for fold in names:
        split = splits_of(clips, groups, fold=fold, seed=seed, say=say if fold == names[0] else _hush)
        chosen = {part: [n for n, own in enumerate(split) if own == part] for part in _PARTS}
        variants = set_aside_variants(clips, chosen)
        classes = check_labels(manifest.path, clips, chosen, kind == "single-label")
        drew = not chosen["valid"] or (fold is None and all(clip.split is None for clip in clips))
        if not chosen["valid"]:
            _hold_out_valid(name, clips, groups, chosen, fold, seed, say)
        check_valid(manifest.path, clips, chosen["valid"])
        splits.append(chosen)
        part_of = partial(_part, joined, groups, classes=classes, kind=kind)
        train = with_whole_variants(clips, chosen["train"], variants)
        if variants and fold == names[0]:
            _say_variants(name, len(variants), len(train) - len(chosen["train"]), say)
        task = Task(
            name=name, digest=manifest.digest, kind=kind, classes=classes, fold=fold,
            train=part_of(train), valid=part_of(chosen["valid"]), draw=seed if drew else None,
        )  # fmt: skip
        test = Sealed(
            np.array([joined[number][1] for number in chosen["test"]], dtype=np.int64),
            partial(part_of, chosen["test"]),
        )
        draws = _draws(clips, groups, chosen["train"], shots, seed)
        say_short(name, clips, chosen["train"], draws if fold == names[0] else (), say)
        for count, drawn in draws.items():
            drawn = with_whole_variants(clips, drawn, variants)
            own = replace(task, train=part_of(drawn), shots=count, pool=len(task.train), draw=seed)
            found.append(Question(own, test))
        if "all" in shots:
            found.append(Question(task, test))
    say_doubts(name, clips, groups, splits, kind == "single-label", say)
    return found


_PARTS = ("train", "valid", "test")


def _hold_out_valid(
    name: str,
    clips: Sequence[Clip],
    groups: Sequence[int],
    chosen: dict[str, list[int]],
    fold: str | None,
    seed: int,
    say: Say,
) -> None:
    """Move a tenth of the train clips to valid, by whole recordings."""
    chosen["train"], chosen["valid"] = hold_out(
        chosen["train"], 0.1, seed, lambda number: clips[number].labels, lambda number: groups[number]
    )
    recordings = [len({groups[number] for number in chosen[part]}) for part in ("train", "valid")]
    where = "" if fold is None else f" of fold {fold}"
    say(
        f"{name}: no valid split{where}; {len(chosen['valid'])} of the train clips (a stratified tenth, of "
        f"{recordings[1]} of {sum(recordings)} recordings, seed {seed}) are held out to select on, "
        f"{len(chosen['train'])} train"
    )


def _say_variants(name: str, count: int, used: int, say: Say) -> None:
    left = f"; {count - used} are left out, because something in them is held out" if used < count else ""
    say(f"{name}: {used} augmented variants of train clips train too{left}")


def _draws(
    clips: Sequence[Clip], groups: Sequence[int], train: Sequence[int], shots: Shots, seed: int
) -> dict[int, list[int]]:
    """The train clips of each number of shots, smallest first."""
    counts = sorted({count for count in shots if isinstance(count, int)})
    if not counts:
        return {}
    labels = [clips[number].labels for number in train]
    drawn = draw_shots(labels, [groups[number] for number in train], counts, seed)
    if len(drawn[counts[0]]) < 2:
        raise InputError(
            f"shots {counts[0]} is one clip in all; training wants 2 or more", options=("shots",)
        )
    return {count: [train[place] for place in drawn[count]] for count in counts}


def _part(
    joined: Sequence[tuple[Clip, int]],
    groups: Sequence[int],
    numbers: Sequence[int],
    *,
    classes: Sequence[str],
    kind: Kind,
) -> Part:
    index = {label: position for position, label in enumerate(classes)}
    pairs = [joined[number] for number in numbers]
    if kind == "single-label":
        targets: NDArray[np.generic] = np.array([index[clip.labels[0]] for clip, _ in pairs], dtype=np.int64)
    else:
        targets = np.zeros((len(pairs), len(classes)), dtype=np.uint8)
        for position, (clip, _) in enumerate(pairs):
            targets[position, [index[label] for label in clip.labels]] = 1
    rows = np.array([row for _, row in pairs], dtype=np.int64)
    firsts: dict[int, str] = {}
    recordings = tuple(firsts.setdefault(groups[number], joined[number][0].id) for number in numbers)
    return Part(rows=rows, targets=targets, ids=tuple(clip.id for clip, _ in pairs), groups=recordings)


def _kind(clips: Iterable[Clip]) -> Kind:
    return "single-label" if all(len(clip.labels) == 1 for clip in clips) else "multi-label"


def _hush(line: str) -> None:
    """Say nothing: a second fold has nothing new to tell."""
