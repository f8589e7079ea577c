"""Which clip is train, valid or test: by the manifest's splits, by its folds, or held out here."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from featcache.errors import InputError
from featcache.manifest import Clip

T = TypeVar("T")


def fold_names(clips: Sequence[Clip]) -> list[str]:
    """The folds of a manifest, in numeric order where they are numbers.

    Raises:
        InputError: a clip has no fold, or there are fewer than two.
    """
    names = {clip.fold for clip in clips if clip.fold is not None}
    bare = next((clip.id for clip in clips if clip.fold is None), None)
    if bare is not None:
        raise InputError(
            f"clip {bare!r} has no fold; cross-validation wants a value in the column 'fold' in each row",
            options=("folds",),
        )
    if len(names) < 2:
        raise InputError(f"cross-validation wants at least 2 folds; the column 'fold' has {sorted(names)}")
    return sorted(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))


def splits_of(
    clips: Sequence[Clip], *, fold: str | None, seed: int, say: Callable[[str], None]
) -> list[str | None]:
    """The split of each clip: its fold's part, its own, or, where no clip has one, a drawn one."""
    if fold is not None:
        return ["test" if clip.fold == fold else "train" for clip in clips]
    split = [clip.split for clip in clips]
    if all(part is None for part in split):
        _, test = hold_out(range(len(clips)), 0.2, seed, lambda index: clips[index].labels)
        chosen = set(test)
        say(
            f"the manifest has no splits: a stratified fifth of the clips (seed {seed}) is the test split; "
            "add a column 'split', or 'fold' and ask for folds, to decide yourself"
        )
        return ["test" if index in chosen else "train" for index in range(len(clips))]
    if bare := split.count(None):
        say(f"{bare} clips have no split and are left out")
    if "test" not in split:
        say("the manifest has no test split: only the validation score is reported")
    return list(split)


def hold_out(
    items: Sequence[T], fraction: float, seed: int, labels: Callable[[T], Sequence[str]]
) -> tuple[list[T], list[T]]:
    """Split items into (kept, held out), each label as near to ``fraction`` as whole items allow.

    Labels are served from the rarest on (Sechidis et al. 2011, without its second-order step);
    every label keeps an item, and a label of two or more has one held out where that is possible.
    Order is kept on both sides.

    Raises:
        InputError: too few items to hold any out.

    >>> hold_out(["a1", "a2", "b1", "b2"], 0.5, 0, lambda item: item[0])
    (['a2', 'b2'], ['a1', 'b1'])
    """
    owned = [tuple(labels(item)) or ("",) for item in items]
    members: dict[str, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(len(items)).tolist():
        for label in owned[index]:
            members.setdefault(label, []).append(index)
    side: dict[int, bool] = {}  # item -> held out
    for label in sorted(members, key=lambda label: (len(members[label]), label)):
        count = len(members[label])
        wanted = max(round(fraction * count), 1) if count > 1 else 0
        wanted -= sum(side.get(index, False) for index in members[label])
        for index in members[label]:
            if index not in side:
                side[index] = wanted > 0
                wanted -= side[index]
    for own in members.values():
        if all(side[index] for index in own):  # its other labels took all of them
            side[own[0]] = False
    kept = [item for index, item in enumerate(items) if not side[index]]
    held = [item for index, item in enumerate(items) if side[index]]
    if not held or not kept:
        raise InputError(f"too few clips ({len(items)}) to hold some out; give the manifest a valid split")
    return kept, held
