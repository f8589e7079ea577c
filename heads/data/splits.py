"""Which clip is train, valid or test: by the manifest's splits, by its folds, or held out here."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
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
    clips: Sequence[Clip],
    groups: Sequence[int],
    *,
    fold: str | None,
    seed: int,
    say: Callable[[str], None],
) -> list[str | None]:
    """The split of each clip: its fold's part, its own, or, where no clip has one, a drawn one.

    Args:
        groups: the recording of each clip; a drawn split keeps them whole
    """
    if fold is not None:
        return ["test" if clip.fold == fold else "train" for clip in clips]
    split = [clip.split for clip in clips]
    if all(part is None for part in split):
        _, test = hold_out(
            range(len(clips)), 0.2, seed, lambda index: clips[index].labels, lambda index: groups[index]
        )
        chosen = set(test)
        say(
            f"the manifest has no splits: a stratified fifth of the clips ({len(test)}, of "
            f"{len({groups[index] for index in test})} of {len(set(groups))} recordings, seed {seed}) is the "
            "test split; "
            "add a column 'split', or 'fold' and ask for folds, to decide yourself"
        )
        return ["test" if index in chosen else "train" for index in range(len(clips))]
    if bare := split.count(None):
        say(f"{bare} clips have no split and are left out")
    if "test" not in split:
        say("the manifest has no test split: only the validation score is reported")
    return list(split)


def set_aside_variants(clips: Sequence[Clip], chosen: dict[str, list[int]]) -> list[int]:
    """Take augmented variants out of all parts: those of train come back once it is known what trains.

    Returns:
        The variants of train.
    """
    found = [number for number in chosen["train"] if clips[number].variant]
    for part, own in chosen.items():
        chosen[part] = [number for number in own if not clips[number].variant]
    return found


def with_whole_variants(clips: Sequence[Clip], train: list[int], variants: Sequence[int]) -> list[int]:
    """Train clips, and the variants in which nothing is but train clips."""
    ids = {clips[number].id for number in train}
    own = [(number, clips[number].variant) for number in variants]
    return train + [number for number, variant in own if variant and variant.ids <= ids]


def hold_out(
    items: Sequence[T],
    fraction: float,
    seed: int,
    labels: Callable[[T], Sequence[str]],
    group: Callable[[T], Hashable] | None = None,
) -> tuple[list[T], list[T]]:
    """Split items into (kept, held out), each label as near to ``fraction`` as whole groups allow.

    Labels are served from the rarest on (Sechidis et al. 2011, without its second-order step);
    every label keeps a group, and a label of two or more has one held out where that is possible.
    Order is kept on both sides.

    Args:
        group: of an item; items of one stay together. Unless given each item is one

    Raises:
        InputError: too few items or groups to hold any out.

    >>> hold_out(["a1", "a2", "b1", "b2"], 0.5, 0, lambda item: item[0])
    (['a2', 'b2'], ['a1', 'b1'])
    >>> hold_out(["a1", "a2", "a3", "a4"], 0.25, 0, lambda item: item[0], lambda item: item > "a2")
    (['a3', 'a4'], ['a1', 'a2'])
    """
    units: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        units.setdefault(index if group is None else group(item), []).append(index)
    sizes = [
        Counter(label for index in own for label in labels(items[index]) or ("",)) for own in units.values()
    ]
    side = _sides(sizes, fraction, seed)
    held = {index for own, out in zip(units.values(), side, strict=True) if out for index in own}
    if not held or len(held) == len(items):
        raise InputError(
            f"too few clips ({len(items)}) or recordings ({len(units)}) to hold some out; "
            "give the manifest a valid split"
        )
    kept = [item for index, item in enumerate(items) if index not in held]
    return kept, [item for index, item in enumerate(items) if index in held]


def _sides(sizes: Sequence[Counter[str]], fraction: float, seed: int) -> list[bool]:
    """Whether each group is held out, by how many items of each label it has."""
    members: dict[str, list[int]] = {}
    for unit in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        for label in sizes[unit]:
            members.setdefault(label, []).append(unit)
    count = {label: sum(sizes[unit][label] for unit in own) for label, own in members.items()}
    side: dict[int, bool] = {}  # group -> held out
    for label in sorted(members, key=lambda label: (count[label], label)):
        own = members[label]
        wanted = max(round(fraction * count[label]), 1) if len(own) > 1 else 0
        wanted -= sum(sizes[unit][label] for unit in own if side.get(unit))
        free = [unit for unit in own if unit not in side]
        for unit in free:
            side[unit] = 0 < sizes[unit][label] <= 2 * wanted  # nearer to the share with it than without
            wanted -= side[unit] * sizes[unit][label]
        if free and wanted > 0 and not any(side[unit] for unit in own):  # all are larger than the share
            side[min(free, key=lambda unit: sizes[unit][label])] = True
    for own in members.values():
        if all(side[unit] for unit in own):  # its other labels took all of them
            side[own[0]] = False
    return [side[unit] for unit in range(len(sizes))]
