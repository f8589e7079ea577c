"""What of a question cannot be judged: refused, or said in a line."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from featcache.cache.read.join import Say
from featcache.errors import InputError
from featcache.manifest import Clip

FEW_CLIPS = 100  # valid splits below this choose an epoch by luck: it costs 1 to 5 points (docs/protocol.md)
FEW = 30  # valid clips below which choosing on them is said to be noise
Chosen = Mapping[str, Sequence[int]]  # split -> numbers of clips


def check_labels(source: Path, clips: Sequence[Clip], chosen: Chosen, single: bool) -> tuple[str, ...]:
    """The classes of a train split, sorted.

    Args:
        source: the manifest, for the messages
        single: each clip has exactly one label

    Raises:
        InputError: nothing to train on or to tell apart, or labels in valid or test that train lacks.
    """
    if not chosen["train"]:
        raise InputError(f"{source} has no clip to train on; give some rows the split 'train'")
    counts = _counts(clips, chosen["train"])
    if not counts:
        raise InputError(f"{source}: no train clip has a label; fill the column 'labels'")
    if len(counts) < 2 if single else all(n == len(chosen["train"]) for n in counts.values()):
        raise InputError(
            f"{source}: every train clip has the label {names_of(counts)}: nothing is to be told apart; "
            "add clips of another class, or clips without a label"
        )
    for part in ("valid", "test"):
        if unseen := sorted(_counts(clips, chosen[part]).keys() - counts.keys()):
            raise InputError(
                f"{source}: {len(unseen)} label(s) in {part} but not in train: {names_of(unseen)}; "
                "no head can learn them: move clips to train or drop the label"
            )
    return tuple(sorted(counts))


def check_valid(source: Path, clips: Sequence[Clip], valid: Sequence[int]) -> None:
    """Hold a valid split to being one.

    Raises:
        InputError: fewer than two clips, or none that has a label.
    """
    if len(valid) < 2:
        raise InputError(
            f"{source}: {len(valid)} clip in valid, and nothing can be chosen on fewer than 2; give more "
            "rows the split 'valid', or none, and a tenth of the train clips is held out"
        )
    if not _counts(clips, valid):
        raise InputError(
            f"{source}: no clip in valid has a label, so no score can be computed there; give rows with "
            "labels the split 'valid'"
        )


def say_doubts(
    name: str, clips: Sequence[Clip], groups: Sequence[int], chosen: Sequence[Chosen], single: bool, say: Say
) -> None:
    """Say what the splits (of one question, or of one a fold) leave in doubt.

    Args:
        name: of the data set
        groups: the recording of each clip
    """
    over = f" in the worst of {len(chosen)} folds" if len(chosen) > 1 else ""
    if (fewest := min(len(own["valid"]) for own in chosen)) < FEW:
        say(f"{name}: {fewest} valid clips{over}; choosing on fewer than {FEW} is mostly noise")
    classes = len({label for own in chosen for label in _counts(clips, own["train"])})
    for part in ("valid", "test"):
        absent = [_absent(clips, own, part) for own in chosen if own[part]]
        if most := max(absent, key=len, default=[]):
            which = f"{names_of(most)}{'' if single else '; macro mAP leaves them out'}"
            say(f"{name}: {len(most)} of {classes} classes have no clip in {part}{over}: {which}")
    recordings: dict[str, set[int]] = {}
    for number in {number for own in chosen for part in own.values() for number in part}:
        for label in clips[number].labels:
            recordings.setdefault(label, set()).add(groups[number])
    if lone := sorted(label for label, own in recordings.items() if len(own) == 1):
        which = f"which trains and leaves none for valid and test: {names_of(lone)}"
        say(f"{name}: {len(lone)} of {classes} classes have one recording, {which}")


def say_short(name: str, clips: Sequence[Clip], train: Sequence[int], shots: Iterable[int], say: Say) -> None:
    """Name the classes that have fewer clips than a number of shots asks for."""
    counts = _counts(clips, train)
    for wanted in shots:
        if short := sorted(label for label, count in counts.items() if count < wanted):
            which = f"have fewer than {wanted} train clips and give all: {names_of(short)}"
            say(f"{name}: {len(short)} of {len(counts)} classes {which}")


def names_of(labels: Iterable[str]) -> str:
    """Up to three of them.

    >>> names_of("abcd")
    "'a', 'b', 'c' …"
    """
    every = list(labels)
    return ", ".join(map(repr, every[:3])) + (" …" if len(every) > 3 else "")


def _absent(clips: Sequence[Clip], chosen: Chosen, part: str) -> list[str]:
    return sorted(_counts(clips, chosen["train"]).keys() - _counts(clips, chosen[part]).keys())


def _counts(clips: Sequence[Clip], numbers: Iterable[int]) -> Counter[str]:
    return Counter(label for number in numbers for label in clips[number].labels)
