"""The paper's data sets in miniature, as they unpack, and a study of them with a small encoder."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 8_000
SCENES = ("Market", "Park", "Square", "Street", "Waterfront")
BIRDS = {"hsn": "HSN", "pow": "POW", "per": "PER", "nes": "NES", "sne": "SNE", "uhh": "UHH", "nbp": "NBP"}
ENCODER = '''"""Loudness of eight pieces of a clip, through a seeded projection."""

import torch
from torch import nn

from featcache.encoders import Encoded


class Tiny(nn.Module):
    sample_rate, clip_seconds, grid, dim, depth, has_cls = 8_000, 1.0, (2, 4), 8, 1, False

    def __init__(self, weights=None, clip_seconds=None):
        super().__init__()
        self.clip_seconds = clip_seconds or 1.0
        torch.manual_seed(0)
        self.project = nn.Linear(10, 8).requires_grad_(False)

    def frontend(self, waveforms):
        whole = [torch.nn.functional.pad(own[:800], (0, max(0, 800 - len(own)))) for own in waveforms]
        return [own.reshape(8, 100)[:, :10].abs().log1p() for own in whole]

    def valid_tokens(self, num_samples):
        return 8

    def forward(self, features, layers):
        return Encoded({layer: self.project(features) for layer in layers}, None)

    def settings(self):
        return {"seed": 0}


class Other(Tiny):
    def settings(self):
        return {"seed": "other"}
'''


def sound(seed: int, seconds: float = 0.1, kind: str = "WAV") -> bytes:
    """Noise as the bytes of a file."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    content = io.BytesIO()
    soundfile.write(content, samples, RATE, format=kind)
    return content.getvalue()


class Data:
    """A folder of data sets; every file of sound is another."""

    def __init__(self, root: Path) -> None:
        self.root, self.files = root, 0

    def write(self, name: str, content: str | bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def sound(self, name: str, seconds: float = 0.1) -> None:
        self.files += 1
        self.write(name, sound(self.files, seconds, "OGG" if name.endswith("ogg") else "WAV"))


def audioset(data: Data) -> None:
    data.write("as20k/class_labels_indices.csv", 'index,mid,display_name\n0,/m/a,"Speech"\n1,/m/b,"Dog"\n')
    for part, count, letter in (("balanced_train_segments", 24, "a"), ("eval_segments", 6, "b")):
        ids = [f"{letter}bcdefghi{number:02}" for number in range(count)]
        rows = [f'{id}, 0.000, 10.000, "{("/m/a", "/m/b", "/m/a,/m/b")[n % 3]}"' for n, id in enumerate(ids)]
        data.write(f"as20k/{part}.csv", "\n".join(["# a", f"# num_segs={count}", "# c", *rows]) + "\n")
        for id in ids:
            data.sound(f"as20k/{part}/Y{id}.wav")


def fsd50k(data: Data) -> None:
    truth = "fsd50k/FSD50K.ground_truth"
    data.write(f"{truth}/vocabulary.csv", "0,Music,/m/a\n1,Bark,/m/b\n")
    labels = ('"Music,Bark",/m/a', "Bark,/m/b", "Music,/m/a")
    dev = [f"{number},{labels[number % 3]},{'val' if number % 4 == 3 else 'train'}" for number in range(16)]
    data.write(f"{truth}/dev.csv", "\r\n".join(["fname,labels,mids,split", *dev]) + "\r\n")
    data.write(
        f"{truth}/eval.csv", "fname,labels,mids\n" + "".join(f"{90 + n},{labels[n]}\n" for n in range(3))
    )
    for number in (*range(16), 90, 91, 92):
        data.sound(f"fsd50k/FSD50K.{'dev' if number < 90 else 'eval'}_audio/{number}.wav")


def desed(data: Data) -> None:
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    for split, count in (("train", 16), ("validation", 6), ("test", 6)):
        data.files += count
        sounds = [{"bytes": sound(data.files - n), "path": "a.wav"} for n in range(count)]
        labels = [(["Dog"], ["Speech"], ["Dog", "Speech"])[n % 3] for n in range(count)]
        (data.root / "desed").mkdir(exist_ok=True)
        table = pyarrow.table({"audio": pyarrow.array(sounds, kind), "labels": labels})
        parquet.write_table(table, data.root / "desed" / f"{split}-00000-of-00001.parquet")


def spass(data: Data) -> None:
    for number, scene in enumerate(SCENES, start=1):
        low = scene.lower()
        rows = [f"{low}{n:05}.wav;{('car_idling', 'talk')[n % 2]}" for n in range(8)]
        table = ["audio_filename;class", *rows, f"{low}00000.wav;talk"]
        data.write(f"spass/{number}_MatrixLabels{scene}.csv", "\n".join(table) + "\n")
        for n in range(8):
            data.sound(f"spass/{scene} audio files/{low}{n:05}.wav")


def urban(data: Data) -> None:
    for folder, count in (("train", 12), ("validate", 4), ("test", 4)):
        for number in range(count):
            events = ["0.01\t0.05\tsiren\n"] * (number % 3 < 2) + ["0.02\t0.08\tdog_bark\n"] * (
                number % 3 > 0
            )
            data.write(f"urban/annotations/{folder}/{folder}{number}.txt", "".join(events))
            data.sound(f"urban/audio/{folder}/{folder}{number}.wav")


def esc50(data: Data) -> None:
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for number in range(20):
        fold, target = number % 5 + 1, number // 5 % 2
        name = f"{fold}-{number}-A-{target}.wav"
        rows.append(f"{name},{fold},{target},{('dog', 'rain')[target]},True,{number},A")
        data.sound(f"esc50/audio/{name}")
    data.write("esc50/meta/esc50.csv", "\n".join(rows) + "\n")


def speech(data: Data) -> None:
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for number in range(24):
        name = f"{('yes', 'no', 'bird')[number % 3]}/{number:08x}_nohash_0.wav"
        if number % 8 > 5:
            lists[("validation", "testing")[number % 8 - 6]].append(name)
        data.sound(f"sc-2/{name}")
    for part, names in lists.items():
        data.write(f"sc-2/{part}_list.txt", "".join(f"{name}\n" for name in names))
    for name in ("pink_noise", "running_tap"):
        data.sound(f"sc-2/_background_noise_/{name}.wav", 1.6)
    for number, word in enumerate(("yes", "no", "_unknown_", "_silence_")):
        data.sound(f"sc-2/speech_commands_test_set_v0.02/{word}/{number}.wav")


def birdset(data: Data, name: str) -> None:
    import pyarrow
    from pyarrow import parquet

    folder, birds = f"birds/{name}", ("amerob", "gcrfin")
    train = [f"XC{name}{number}" for number in range(20)]
    test = [f"{name}_1_{5 * number:03}_{5 * number + 5:03}" for number in range(6)]
    for id in (*train, *test):
        data.sound(f"{folder}/audio/{id}.ogg")
    own = [birds[number % 2] for number in range(20)]
    tables = {
        "train": {
            "filepath": [f"{id}.ogg" for id in train], "ebird_code": own,
            "ebird_code_multilabel": [[bird] for bird in own], "detected_events": [[[0.0, 0.1]]] * 20,
            "event_cluster": [[0]] * 20, "length": [1] * 20,
        },
        "test_5s": {
            "filepath": [f"{id}.ogg" for id in test],
            "ebird_code_multilabel": [[], *[[birds[number % 2]] for number in range(5)]],
        },
    }  # fmt: skip
    for part, columns in tables.items():
        parquet.write_table(pyarrow.table(columns), data.root / folder / f"{name}_metadata_{part}.parquet")
    data.write(f"{folder}/{name}.json", json.dumps({"id2label": dict(enumerate(birds))}))


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The paper's whole table in small: the template's data sets and two encoders, two heads, few steps."""
    pytest.importorskip("pyarrow")
    home = tmp_path_factory.mktemp("study")
    data = Data(home / "data")
    for make in (audioset, fsd50k, desed, spass, urban, esc50, speech):
        make(data)
    for name in BIRDS.values():
        birdset(data, name)
    (home / "tiny.py").write_text(ENCODER)
    (home / "small.toml").write_text(text())
    with pytest.MonkeyPatch.context() as patch:  # digests are remembered between the runs of a study
        patch.setenv("FEATCACHE_HOME", str(home / "home"))
        yield home / "small.toml"


def text() -> str:
    """The study: every set of the paper, one encoder that is here, another version of it, one that is not."""
    sources = {
        "as20k": "as20k:data/as20k", "fsd50k": "fsd50k:data/fsd50k", "desed": "idmt-desed-fl:data/desed",
        "spass": "spass:data/spass", "urban": "urban-sed:data/urban", "esc50": "esc50:data/esc50",
        "sc-2": "speechcommands-12:data/sc-2",
        **{key: f"birdset-{key}:data/birds/{name}" for key, name in BIRDS.items()},
    }  # fmt: skip
    own = {
        "esc50": "probe = { folds = true }\n",
        **dict.fromkeys(BIRDS, "fewshot = { shots = 8, seed = 1 }\n"),
        "hsn": "fewshot = { shots = 8, seed = 1 }\nextract = { variants = 2 }\n",
    }
    datasets = "".join(
        f'[datasets.{name}]\nsource = "{source}"\nallow_missing = true\n{own.get(name, "")}'
        for name, source in sources.items()
    )
    return f"""
reference = "unmute"
heads = ["linear", "protobin"]
[extract]
clip_seconds = 1
device = "cpu"
[probe]
seeds = 1
epochs = 2
batch_size = 8
solved = false
device = "cpu"
[encoders.eat]
encoder = "tiny.py:Tiny"
[encoders."eat+"]
encoder = "tiny.py:Other"
[encoders.beats]
weights = "weights/beats.pt"
{datasets}"""
