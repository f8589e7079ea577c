"""Speech Commands V2: 35 words, or the benchmark's ten with silence and unknown."""

from pathlib import Path

from featcache.audio.load import duration
from featcache.datasets.hub import HubTable
from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import AudioError, InputError
from featcache.manifest import Clip

TEN = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
WORDS = (
    *TEN, "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "bed", "bird",
    "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow", "backward", "forward", "follow",
    "learn", "visual",
)  # fmt: skip
BACKGROUND, SILENCE, UNKNOWN = "_background_noise_", "_silence_", "_unknown_"
BENCHMARK = "speech_commands_test_set_v0.02"
LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
SLICE, HOP = 1.0, 0.5  # [s] of background noise as silence
VALID_NOISE = "running_tap"  # the background recording of valid; the others are train's


def read_words(root: Root) -> Listing:
    """Folder names as labels; what is in neither list is train."""
    return Listing(clips=_utterances(root, root.find(LISTS["valid"]).parent), classes=WORDS)


def read_benchmark(root: Root) -> Listing:
    """Ten words; the others are unknown; silence is cut from noise; test is the benchmark's own archive."""
    clips: list[Clip] = []
    if root.wants("train") or root.wants("valid"):
        main = root.find(LISTS["valid"]).parent
        clips += [_twelve(clip) for clip in _utterances(root, main) if clip.split != "test"]
        clips += _silence(main)
    if root.wants("test"):
        files = AudioFiles(root.find(BENCHMARK))
        clips += [
            Clip(id=f"test/{key}", path=path, labels=(key.partition("/")[0],), split="test")
            for key, path in files.files.items()
        ]
    return Listing(clips=clips, classes=(*TEN, UNKNOWN, SILENCE))


def _utterances(root: Root, main: Path) -> list[Clip]:
    splits = {
        line.strip(): split
        for split, name in LISTS.items()
        for line in root.find(name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    }
    files = AudioFiles(main).files
    there = {f"{key}.wav": path for key, path in files.items() if key.partition("/")[0] in WORDS}
    names = sorted(there | dict.fromkeys(splits))  # a list names files that may not be there
    return [
        Clip(
            id=name,
            path=there.get(name, main / name),
            labels=(name.partition("/")[0],),
            split=splits.get(name, "train"),
            group=name.partition("/")[2].partition("_")[0],  # the speaker
        )
        for name in names
    ]


def _twelve(clip: Clip) -> Clip:
    from dataclasses import replace

    return clip if clip.labels[0] in TEN else replace(clip, labels=(UNKNOWN,))


def _silence(main: Path) -> list[Clip]:
    """Slices of a second every half second of each background recording."""
    clips = []
    for name, path in AudioFiles(main / BACKGROUND).files.items():
        try:
            total = duration(path)
        except AudioError as error:
            raise InputError(f"the background noise cannot be cut into silence: {error}") from None
        split = "valid" if name == VALID_NOISE else "train"
        for number in range(int((total - SLICE) / HOP) + 1 if total >= SLICE else 0):
            start = number * HOP
            id = f"{BACKGROUND}/{name}@{start:g}-{start + SLICE:g}"
            clips.append(
                Clip(
                    id=id,
                    path=path,
                    start=start,
                    end=start + SLICE,
                    labels=(SILENCE,),
                    split=split,
                    group=name,
                )
            )
    return clips


_FACTS = {
    "multilabel": False,
    "metric": "accuracy",
    "audio": "16 kHz mono, up to 1 s",
    "licence": "CC BY 4.0",
    "citation": "Warden, Speech Commands, 2018, https://arxiv.org/abs/1804.03209",
}
WORDS_35 = DatasetSpec(
    name="speechcommands-35",
    title="Speech Commands V2, 35 words",
    read=read_words,
    classes=35,
    sizes={"train": 84_843, "valid": 9_981, "test": 11_005},
    origin="http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    layout="a folder for each word, validation_list.txt, testing_list.txt",
    note="Background noise is no class here. `group` is the speaker.",
    **_FACTS,  # type: ignore[arg-type]
)
WORDS_12 = DatasetSpec(
    name="speechcommands-12",
    title="Speech Commands V2, 12 classes",
    read=read_benchmark,
    classes=12,
    sizes={"train": 84_843, "valid": 9_981, "test": 4_890},
    origin=f"{WORDS_35.origin}, and http://download.tensorflow.org/data/{BENCHMARK}.tar.gz",
    layout=f"as for speechcommands-35, and {BENCHMARK}/ beside or in it, with a folder for each class",
    hub=HubTable(
        columns=("label", "is_unknown"),
        labels=lambda row: (UNKNOWN if row["is_unknown"] else row["label"],),
        id="file",
    ),
    note=(
        "The paper's set (84.8k train). Every other word is `_unknown_`. Silence comes on top of the "
        "published numbers: slices of 1 s every 0.5 s of the background noise, `running_tap` for valid and "
        "the others for train, as TFDS and HEAR cut it; how the paper built it is not known. 121 test "
        "clips are exact copies of others."
    ),
    **_FACTS,  # type: ignore[arg-type]
)
