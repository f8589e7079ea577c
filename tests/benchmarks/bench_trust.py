"""What damaged input does: ``python tests/benchmarks/bench_trust.py [--full] [--seed 0]``.

Seeded damage to manifests and to audio files of every common format (40 and 150; with ``--full`` 400
and 1,500). Each is read as stage one reads it, and ends in one of four ways: read, refused in one line,
shorter than it was without a word, or a traceback. The last two must not happen, nor may one take 30 s
or the process 2 GB. A further check is a function and a line in ``CHECKS``.
"""

import argparse
import faulthandler
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from featcache.audio.load import duration, load_clip
from featcache.errors import FeatcacheError
from featcache.manifest import Clip, Manifest, read_manifest
from featcache.manifest.windows import window_manifest

SLOWEST, LARGEST = 30.0, 2 << 30  # [s] of one input, [bytes] of the process
RATE, SECONDS = 22_050, 3.0
FORMATS: dict[str, dict[str, str]] = {
    "wav": {}, "float.wav": {"subtype": "FLOAT"}, "ima.wav": {"subtype": "IMA_ADPCM"},
    "rf64": {"format": "RF64"}, "aiff": {}, "au": {}, "w64": {}, "caf": {}, "flac": {}, "ogg": {}, "mp3": {},
    "nist": {}, "opus": {"format": "OGG", "subtype": "OPUS"},
}  # fmt: skip
ENDINGS = ("read", "refused", "shorter", "traceback")


@dataclass
class Outcome:
    """How the inputs of one check ended."""

    endings: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # [s]
    words: list[str] = field(default_factory=list)  # of what must not happen

    @property
    def sound(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.words and self.slowest < SLOWEST


# What is read, in words, and how: it returns whether something was lost without a word.
Case = tuple[str, Callable[[], bool]]


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
        yield str(path), lambda path=path, lines=lines: len(read_manifest(path)) < lines - 1


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
        yield str(path), lambda path=path, least=least: _decode(path) < least


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
# How the cases are made, and how many there are: small, full.
CHECKS: dict[str, tuple[Callable[[Path, int, random.Random], Iterator[Case]], int, int]] = {
    "manifests": (damaged_manifests, 40, 400),
    "audio": (damaged_audio, 150, 1500),
}


def run(name: str, count: int, seed: int, folder: Path) -> Outcome:
    """One check of ``count`` inputs."""
    outcome = Outcome()
    make, _, _ = CHECKS[name]
    for what, case in make(folder, count, random.Random(seed)):
        began = time.perf_counter()
        ending = _ending(case)
        outcome.endings[ending.split(":")[0]] += 1
        outcome.slowest = max(outcome.slowest, time.perf_counter() - began)
        if ending not in ("read", "refused"):
            outcome.words.append(f"{what}: {ending}")
    return outcome


def _ending(case: Callable[[], bool]) -> str:
    try:
        return "shorter" if case() else "read"
    except FeatcacheError as error:
        return "refused" if "\n" not in str(error) else "traceback: several lines"
    except Exception as error:
        return f"traceback: {type(error).__name__}: {error}"


def peak_memory() -> int:
    """[bytes] this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="ten times as many inputs")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(1800, exit=True)  # nothing may wait for ever
    print(f"| check | inputs | {' | '.join(ENDINGS)} | slowest [s] |\n|---|{'---|' * (len(ENDINGS) + 2)}")
    sound = True
    for name, (_, small, full) in CHECKS.items():
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(name, full if arguments.full else small, arguments.seed, Path(folder))
        counts = " | ".join(str(outcome.endings[ending]) for ending in ENDINGS)
        print(f"| {name} | {outcome.endings.total()} | {counts} | {outcome.slowest:.2f} |")
        print("\n".join(outcome.words), end="\n" if outcome.words else "")
        sound &= outcome.sound
    print(f"peak memory {peak_memory() / 1e9:.2f} GB")
    raise SystemExit(0 if sound and peak_memory() < LARGEST else 1)


if __name__ == "__main__":
    main()
