"""Damaged manifests and audio files, for ``bench_trust.py``: what is lost of them must be refused."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from trust_cases import Case, judge

from featcache.audio.load import duration, load_clip
from featcache.manifest import Clip, Manifest, read_manifest
from featcache.manifest.windows import window_manifest

RATE, SECONDS = 22_050, 3.0
FORMATS: dict[str, dict[str, str]] = {
    "wav": {}, "float.wav": {"subtype": "FLOAT"}, "ima.wav": {"subtype": "IMA_ADPCM"},
    "rf64": {"format": "RF64"}, "aiff": {}, "au": {}, "w64": {}, "caf": {}, "flac": {}, "ogg": {}, "mp3": {},
    "nist": {}, "opus": {"format": "OGG", "subtype": "OPUS"},
}  # fmt: skip


def damaged_manifests(folder: Path, count: int, dice: random.Random) -> Iterator[Case]:
    """Twenty rows, damaged once to three times; what is read must have a clip for each line."""
    rows = [f"audio/{i}.wav,dog;rain,{('train', 'valid', 'test')[i % 3]},{i}.5,{i + 1}.25" for i in range(20)]
    for index in range(count):
        text = "\n".join(["path,labels,split,start,end", *rows]) + "\n"
        for _ in range(dice.randint(1, 3)):
            text = _damaged_text(text, dice)
        path = folder / f"{index}.csv"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            lines = sum(bool(line.strip()) for line in file)
        yield str(path), lambda path=path, lines=lines: judge(len(read_manifest(path)) >= lines - 1)


def _damaged_text(text: str, dice: random.Random) -> str:
    place = dice.randrange(len(text) + 1)
    strange = [
        '"',
        ",",
        ";",
        "\t",
        "\n",
        "\r",
        "\0",
        "\ufeff",
        "\udcff",
        "é",
        "nan",
        "1e999",
        "-",
        '""',
        "x" * 200_000,
    ]
    kinds = [
        lambda: text[:place] + dice.choice(strange) + text[place:],
        lambda: text[:place] + text[place + dice.randint(1, 12) :],
        lambda: text[:place],
        lambda: text.replace(",", dice.choice(";\t|"), dice.choice([-1, 1, 7])),
        lambda: text.replace("\n", "\r\n"),
        lambda: text.replace("path", dice.choice(["Path", "file", "labels", "", "filename"]), 1),
        lambda: text.replace("labels", dice.choice(["class", "path", "Label", "end"]), 1),
    ]  # fmt: skip
    return dice.choice(kinds)()


def damaged_audio(folder: Path, count: int, dice: random.Random) -> Iterator[Case]:
    """Three seconds of sound in every format; where bytes were lost, fewer samples must be refused."""
    noise = np.random.default_rng(0).standard_normal(round(RATE * SECONDS)) * 0.1
    whole: dict[str, tuple[bytes, int]] = {}
    for suffix, settings in FORMATS.items():
        path = folder / f"whole.{suffix}"
        rate = 24_000 if suffix == "opus" else RATE
        soundfile.write(path, noise.astype(np.float32), rate, **settings)
        whole[suffix] = path.read_bytes(), len(load_clip(path, sample_rate=16_000).waveform)
    for index in range(count):
        suffix = dice.choice(list(FORMATS))
        data, length = whole[suffix]
        kind = dice.choice(list(DAMAGE))
        path = folder / f"{index}.{kind}.{suffix}"
        path.write_bytes(DAMAGE[kind](data, dice))
        least = length if kind in ("cut", "hole") else 0
        yield str(path), lambda path=path, least=least: judge(_decode(path) >= least)


def _decode(path: Path) -> int:
    """Samples of a clip as stage one makes it: windows are listed, then it is decoded and resampled."""
    clips = window_manifest(Manifest((Clip(id="a", path=path),), path), 1.0)
    if len(clips) > 1:
        load_clip(path, sample_rate=16_000, start=clips.clips[-1].start, end=clips.clips[-1].end)
    duration(path)
    return len(load_clip(path, sample_rate=16_000, max_seconds=10.0).waveform)


def _flip(data: bytes, dice: random.Random, within: int) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        changed[dice.randrange(min(within, len(data)))] = dice.randrange(256)
    return bytes(changed)


def _extreme(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(min(120, len(data) - 8))
    value = dice.choice(
        [b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"\0\0\0\x80", b"\1\0\0\0"]
    )
    return data[:place] + value + data[place + len(value) :]


def _hole(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data))
    return data[:place] + data[place + dice.randint(1, 5000) :]


DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": lambda data, dice: data[: dice.randrange(len(data))],
    "hole": _hole,
    "header": lambda data, dice: _flip(data, dice, 120),
    "extreme": _extreme,
    "noise": lambda data, dice: _flip(data, dice, len(data)),
    "junk": lambda data, dice: data + dice.randbytes(dice.randint(1, 5000)),
}
