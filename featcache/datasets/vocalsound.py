"""VocalSound: laughter, coughs and the like of thousands of speakers."""

from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError
from featcache.manifest import Clip

LABELS = ("laughter", "sigh", "throatclearing", "cough", "sneeze", "sniff")
LISTS = {"tr": "train", "val": "valid", "te": "test"}


def read(root: Root) -> Listing:
    """``audio_16k/SPEAKER_N_LABEL.wav``; a speaker's split is that of the list that has them."""
    audio = root.find("audio_16k")
    splits = {}
    for name, split in LISTS.items():
        table = root.find(f"meta/{name}_meta.csv")
        for line in table.read_text(encoding="utf-8-sig").splitlines():  # the speaker stands first; no header
            splits[line.partition(",")[0].strip()] = split
    clips = []
    for name, path in AudioFiles(audio).files.items():
        speaker, _, label = name.split("_", 2) if name.count("_") == 2 else (name, "", "")
        if label not in LABELS or speaker not in splits:
            raise InputError(
                f"{path}: wanted SPEAKER_N_LABEL.wav of a speaker in meta/ and one of {', '.join(LABELS)}"
            )
        clips.append(Clip(id=path.name, path=path, labels=(label,), split=splits[speaker], group=speaker))
    return Listing(clips=clips, classes=LABELS)


VOCALSOUND = DatasetSpec(
    name="vocalsound",
    title="VocalSound",
    read=read,
    classes=6,
    sizes={"all": 21_024},
    multilabel=False,
    metric="accuracy",
    audio="16 kHz mono",
    licence="CC BY-SA 4.0",
    origin="https://github.com/YuanGongND/vocalsound (vs_release_16k.zip)",
    layout="audio_16k/, meta/{tr,val,te}_meta.csv",
    citation="Gong et al., VocalSound, ICASSP 2022, https://arxiv.org/abs/2205.03433",
    note="`group` is the speaker. Published sizes of its splits could not be looked up.",
)
