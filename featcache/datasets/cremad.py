"""CREMA-D: emotions acted in speech."""

import re

from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError
from featcache.manifest import Clip

EMOTIONS = {
    "ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
NAME = re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>[A-Z]{1,2})")
POINTER = b"version https://git-lfs"


def read(root: Root) -> Listing:
    """``AudioWAV``: the emotion that the actor was asked for, from the file's name."""
    folder = root.find("AudioWAV")
    clips = []
    for name, path in AudioFiles(folder).files.items():
        found = NAME.fullmatch(name)
        if not found or found["emotion"] not in EMOTIONS:
            raise InputError(f"{path} is not called as in CREMA-D; wanted ACTOR_SENTENCE_EMOTION_LEVEL.wav")
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                raise InputError(
                    f"{path} is a pointer of Git LFS, no audio; clone with git-lfs, or 'git lfs pull'"
                )
        clips.append(
            Clip(id=path.name, path=path, labels=(EMOTIONS[found["emotion"]],), group=found["actor"])
        )
    return Listing(clips=clips, classes=tuple(EMOTIONS.values()))


CREMA_D = DatasetSpec(
    name="crema-d",
    title="CREMA-D",
    read=read,
    classes=6,
    sizes={"all": 7_442},
    multilabel=False,
    metric="accuracy",
    audio="16 kHz mono, 1.3 to 5 s",
    licence="ODbL (third-party statement)",
    origin="https://github.com/CheyneyComputerScience/CREMA-D (with git-lfs: the zip holds pointers alone)",
    layout="AudioWAV/",
    citation="Cao et al., CREMA-D, IEEE TAC 2014, https://doi.org/10.1109/TAFFC.2014.2336244",
    note="No official split. `group` is the actor, so a split that is drawn keeps voices apart.",
)
