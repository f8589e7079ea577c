"""The recordings that soundscapes are made of: those in the package, and ESC-10 where the caller has it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from featcache.errors import InputError, MissingError
from featcache.manifest import SPLITS

SOUNDS = Path(__file__).with_name("sounds")  # CC0, file by file: see ATTRIBUTION.md in it
BACKGROUND = "background"  # the label of recordings that lie under a whole soundscape and are no class

# Clips from one freesound recording share a fold, so folds are what keeps recordings apart.
ESC10_FOLDS = {"1": "train", "2": "train", "3": "valid", "4": "test", "5": "test"}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One sound that soundscapes of one split may use."""

    path: Path
    label: str  # its class, or BACKGROUND
    split: str  # train, valid or test


def packaged_sounds() -> list[Recording]:
    """The recordings that ship with featcache: 9 classes and backgrounds, 93 files, 2 MB.

    >>> sounds = packaged_sounds()
    >>> len(sounds), sorted({sound.label for sound in sounds})[:4]
    (93, ['background', 'bass', 'bayan', 'blip'])
    """
    with (SOUNDS / "index.csv").open(encoding="utf-8", newline="") as file:
        return [
            Recording(path=SOUNDS / row["path"], label=row["label"], split=row["split"])
            for row in csv.DictReader(file)
        ]


def esc10_sources(root: str | Path) -> list[Recording]:
    """ESC-10 as recordings: 10 classes, no backgrounds, train folds 1-2, valid fold 3, test folds 4-5.

    Args:
        root: the folder that holds ``001 - Dog bark`` and the other nine

    Raises:
        MissingError: no such folder, or no ESC-10 class folder in it.
        InputError: a file name does not begin with its fold.

    Source:
        Piczak 2015, https://doi.org/10.1145/2733373.2806390 (CC BY; not shipped with featcache)
    """
    files = sorted(Path(root).glob("[0-9][0-9][0-9] - */*.ogg"))
    if not files:
        raise MissingError(
            f"no ESC-10 at {root}; wanted class folders such as '001 - Dog bark' with .ogg files"
        )
    return [Recording(path=file, label=_esc10_label(file), split=_esc10_split(file)) for file in files]


def by_class(recordings: Sequence[Recording], split: str) -> dict[str, list[Path]]:
    """Class (or BACKGROUND) -> its recordings of one split, in the order given.

    Raises:
        InputError: a class has no recording in this split.
    """
    table: dict[str, list[Path]] = {}
    for label in sorted({recording.label for recording in recordings}):
        table[label] = [r.path for r in recordings if (r.label, r.split) == (label, split)]
        if not table[label]:
            raise InputError(
                f"class {label!r} has no recording for {split}; wanted one or more in each of {SPLITS}"
            )
    return table


def _esc10_label(file: Path) -> str:
    return file.parent.name.split(" - ", 1)[1].lower()


def _esc10_split(file: Path) -> str:
    fold = file.name.split("-", 1)[0]
    if fold not in ESC10_FOLDS:
        raise InputError(
            f"{file} does not begin with its fold; wanted 1-..., 2-... to 5-..., as ESC-10 has it"
        )
    return ESC10_FOLDS[fold]
