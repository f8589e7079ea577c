"""What does a head on new sound cost, beside the extraction of the same windows?

    python tests/benchmarks/bench_predict.py               # two minutes of sound, to see that it works
    python tests/benchmarks/bench_predict.py --minutes 60  # the size of record
    python tests/benchmarks/bench_predict.py --minutes 10 --encoder timm:vit_tiny_patch16_224

One recording of 48 kHz (16 bit WAV: seeded noise and tones), windows of ten seconds. ``extract`` encodes
them into a cache, ``predict`` gives their detections by a head that a probe of short clips made. Both are the
commands, called in one process and in turns. Shown are medians of the repeats, of the wall clock and of
processor time, which says what a command costs also where others keep the cores busy; the ratio is the median
of those of each turn, and the bar is 1.1. An encoder of timm has seeded weights.
"""

import argparse
import contextlib
import io
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch loads

import numpy as np
import soundfile
import torch

from featcache.cli.main import featcache
from featcache.cores import cores
from featcache.heads.probing.probe import probe

RATE, SECONDS = 48_000, 10.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--encoder", default="logmel", help="logmel, or timm:MODEL with seeded weights")
    parser.add_argument("--head", default="protobin")
    parser.add_argument("--repeats", type=int, default=1)
    own = parser.parse_args()
    print(
        f"{platform.machine()}, {cores()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| encoder | head | sound | windows | | wall, s | processor, s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for row in measured(Path(folder), own.encoder, own.head, own.minutes, own.repeats):
            print(row, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\npeak memory of the process, both commands: {peak:.2f} GB")


def measured(folder: Path, encoder: str, head: str, minutes: float, repeats: int) -> list[str]:
    """Rows of both commands and of their ratio."""
    given = ["--encoder", encoder, "--clip-seconds", str(SECONDS)]
    weights: list[str] = []
    if encoder.startswith("timm:"):
        weights = ["--weights", str(seeded(encoder.removeprefix("timm:"), folder / "weights.pt"))]
    saved = trained(folder / "trained", [*given, *weights], head)
    (folder / "long").mkdir()
    recording(folder / "long/long.wav", round(60 * minutes), seed=1)
    (folder / "long.csv").write_text("path,labels\nlong/long.wav,\n")
    commands = {
        "extract": ["extract", str(folder / "long.csv"), *given, *weights, "--window", str(SECONDS),
                    "--out", str(folder / "long.zarr")],
        "predict": ["predict", str(saved), *weights, str(folder / "long"),
                    "--out", str(folder / "found.csv")],
    }  # fmt: skip
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, words in commands.items():
            shutil.rmtree(folder / "long.zarr", ignore_errors=True)
            took[name].append(timed(words))
    sound = f"{minutes:g} min of {RATE // 1000} kHz"
    shared = f"| `{encoder}` | `{head}` | {sound} | {int(60 * minutes / SECONDS)} |"
    found = {name: np.array(own) for name, own in took.items()}  # (repeats, 2)
    ratios = found["predict"] / found["extract"]
    rows = [
        f"{shared} `{name}` | {wall:.1f} | {cpu:.1f} |"
        for name, (wall, cpu) in ((name, np.median(own, axis=0)) for name, own in found.items())
    ]
    wall, cpu = (f"**{np.median(own):.2f}** ({own.min():.2f} to {own.max():.2f})" for own in ratios.T)
    return [*rows, f"{shared} ratio | {wall} | {cpu} |"]


def timed(words: list[str]) -> tuple[float, float]:
    """[s] of the wall clock and of this process's threads that a command takes; what it prints is dropped."""
    began = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = featcache(words, standalone_mode=False)
    if code:
        raise SystemExit(f"{words[0]} ended with {code}")
    return time.perf_counter() - began[0], time.process_time() - began[1]


def trained(folder: Path, given: list[str], head: str) -> Path:
    """A head of twelve short clips, by the commands."""
    folder.mkdir()
    lines = ["path,labels,split"]
    for number in range(12):
        recording(folder / f"{number}.wav", 2, seed=number)
        lines.append(f"{number}.wav,{'ab'[number % 2]},{('train', 'valid', 'test')[number // 2 % 3]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    cache = folder / "clips.zarr"
    timed(["extract", str(folder / "clips.csv"), *given, "--out", str(cache)])
    (result,) = probe(cache, heads=head, epochs=1, seeds=1, solved=False, out=folder / "results")
    return result.file("head")


def seeded(model: str, path: Path) -> Path:
    """Weights of a timm model with this seed."""
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model(model, pretrained=False, in_chans=1).state_dict(), path)
    return path


def recording(path: Path, seconds: int, seed: int) -> None:
    """Noise, and a tone in every other second; written a minute at a time."""
    random = np.random.default_rng(seed)
    clock = np.arange(RATE) / RATE
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for second in range(seconds):
            sound = 0.05 * random.standard_normal(RATE)
            if second % 2:
                sound += 0.3 * np.sin(2 * np.pi * random.uniform(200, 8000) * clock)
            file.write(sound.astype(np.float32))


if __name__ == "__main__":
    sys.exit(main())
