"""Does extraction run at the speed of its slowest stage? Each stage alone, and all of them together.

    python tests/benchmarks/bench_extract.py            # small, seconds
    python tests/benchmarks/bench_extract.py --full     # the sizes of record
    python tests/benchmarks/bench_extract.py --full --device cuda --dtype bf16

Clips are seeded tones in noise, as 44.1 kHz FLAC (of ``ready``: 0.1 s of 16 kHz WAV).
``decode`` is `decode_ahead` with a thread a core;
``forward`` the encoder on features that are there, in full batches; ``write`` a cache made of tokens that are
there (for ``ready``: plain files of the same bytes, written and synced). ``ready`` is an encoder that returns
512 x 768 tokens at once: a device that is never what binds. ``lengths`` are 0.3 to 30 s, log-uniform, through
an encoder whose shapes follow them, sorted by length and shuffled. All stages of a row see the same clips;
the fastest of the repeats is shown.

The last two columns are milliseconds of processor time a clip: of the stages alone, added up, and of all
together. They say what the pipeline itself costs also where others keep the cores busy.

Peak memory is that of two further processes, with few clips and with many.
"""

import argparse
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch loads

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from featcache.audio.decode_ahead import decode_ahead
from featcache.audio.load import Decoded
from featcache.cache import CacheWriter
from featcache.cores import cores
from featcache.devices import choose_device
from featcache.encoders import build_encoder, encoder_spec
from featcache.encoders.base import Encoded, Encoder, decode_seconds
from featcache.extraction.batcher import ClipTokens, tokens_of
from featcache.extraction.extract import extract
from featcache.extraction.fingerprint import layout_of
from featcache.extraction.runner import Runner
from featcache.manifest import Clip, read_manifest

BATCH = 32


class Ready(nn.Module):
    """An encoder that costs nothing: the same random tokens for every clip."""

    sample_rate, clip_seconds, depth, has_cls = 16_000, 1.0, 1, False

    def __init__(self, tokens: int = 512, dim: int = 768) -> None:
        super().__init__()
        self.grid, self.dim = (8, tokens // 8), dim
        self.tokens = torch.randn(BATCH, tokens, dim, generator=torch.Generator().manual_seed(0))

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        return [waveform.new_zeros(1) for waveform in waveforms]

    def valid_tokens(self, num_samples: int) -> int:
        return self.grid[0] * self.grid[1]

    def settings(self) -> dict[str, Any]:
        return {}

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        return Encoded({1: self.tokens[: len(features)]}, None)


class Cost(NamedTuple):
    """Of one stage, or of all."""

    wall: float  # [s]
    processor: float  # [s] of all threads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="full-size AudioMAE, more clips, peak memory")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--compile", action="store_true", help="as the option of extract")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", action="append", choices=list(CASES), help="this case; may be repeated")
    parser.add_argument("--memory", type=int, help="only extract so many clips, and print the peak in MB")
    parser.add_argument("--decoding", action="store_true", help="only decode, by threads and by processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.memory:
            print(f"{peak(folder, options.memory):.0f}")
            return
        if options.decoding:
            decoding(folder, options)
            return
        table(folder, options)
    if options.full and not options.only:
        few, many = (own_process(clips) for clips in (1000, 20_000))
        print(f"\npeak memory: {few} MB at 1,000 clips, {many} MB at 20,000 ({many / few:.3f} of it)")


def table(folder: Path, options: argparse.Namespace) -> None:
    print(
        f"{processor()}, {cores()} cores, {options.device}, {options.dtype}, torch {torch.__version__}, "
        f"threads wait {os.environ['OMP_WAIT_POLICY'].lower()}"
    )
    print(f"load average before: {os.getloadavg()[0]:.1f}\n")
    columns = (
        "encoder", "clips", "decode", "frontend", "forward", "write", "end to end", "of the slowest",
        "of the forward", "stages [ms]", "end to end [ms]",
    )  # fmt: skip
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, (few, many, encoder) in CASES.items():
        if name not in (options.only or CASES):
            continue
        with tempfile.TemporaryDirectory(dir=folder) as inner:
            manifest = sounds(
                Path(inner) / "audio", many() if options.full else few(), *FORMATS.get(name, ())
            )
            built = encoder(Path(inner), options.full)
            found = [measured(Path(inner), manifest, built, options) for _ in range(options.repeats)]
        count = len(many() if options.full else few())
        print(f"| {name} | {count} | {row(found, count)} |", flush=True)


def row(found: Sequence[Sequence[Cost]], clips: int) -> str:
    """Cells of the fastest repeats; each repeat has the costs of the stages and of all together."""
    *rates, whole = (clips / min(cost.wall for cost in column) for column in zip(*found, strict=True))
    *stages, all_ms = (
        min(cost.processor for cost in column) / clips * 1000 for column in zip(*found, strict=True)
    )
    cells = [f"{rate:,.1f}" for rate in (*rates, whole)]
    cells += [f"{whole / min(rates):.2f}", f"{whole / rates[2]:.2f}", f"{sum(stages):.2f}", f"{all_ms:.2f}"]
    return " | ".join(cells)


def audiomae(folder: Path, full: bool) -> Encoder:
    from bench_precision import GOLDEN, seeded

    if not full:
        small = str(GOLDEN / "audiomae/small_pert.safetensors")
        return encoder_spec("audiomae").build(small, 10.0, num_heads=4)
    torch.save(seeded(GOLDEN / "audiomae/keys_full.txt"), folder / "full.pt")
    return encoder_spec("audiomae").build(str(folder / "full.pt"), 10.0)


def beats(folder: Path, full: bool) -> Encoder:
    from bench_precision import encoders

    found: Encoder = {name: own for name, _, own in encoders(folder, False)}["beats"]
    return found


def lengths(count: int) -> list[float]:
    """[s] 0.3 to 30, as FSD50K's are."""
    drawn = np.random.default_rng(0).uniform(np.log(0.3), np.log(30), count)
    return [float(seconds) for seconds in np.exp(drawn)]


FORMATS = {"ready": ("wav", 16_000)}  # as cheap to decode as can be
Lengths = Callable[[], list[float]]
# Name -> lengths of the clips [s] of a small run and of a full one, and the encoder.
CASES: dict[str, tuple[Lengths, Lengths, Callable[[Path, bool], Encoder]]] = {
    "audiomae": (lambda: [10.0] * 4, lambda: [10.0] * 96, audiomae),
    "logmel": (lambda: [10.0] * 4, lambda: [10.0] * 256, lambda folder, full: build_encoder("logmel")),
    "ready": (lambda: [0.1] * 32, lambda: [0.1] * 1000, lambda folder, full: Ready()),
    "beats, 96 wide, lengths shuffled": (lambda: lengths(6), lambda: lengths(256), beats),
    "beats, 96 wide, lengths sorted": (lambda: sorted(lengths(6)), lambda: sorted(lengths(256)), beats),
}


def sounds(folder: Path, seconds: Sequence[float], kind: str = "flac", rate: int = 44_100) -> Path:
    """Files of these lengths, and their manifest."""
    folder.mkdir()
    random = np.random.default_rng(len(seconds))
    noise = 0.05 * random.standard_normal(round(31 * rate))
    rows = ["path,labels"]
    for index, length in enumerate(seconds):
        count = round(length * rate)
        tone = 0.3 * np.sin(2 * np.pi * random.uniform(200, 4000) * np.arange(count) / rate)
        soundfile.write(folder / f"{index}.{kind}", (tone + noise[:count]).astype(np.float32), rate)
        rows.append(f"{index}.{kind},tone")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder / "clips.csv"


def measured(folder: Path, manifest: Path, encoder: Encoder, options: argparse.Namespace) -> list[Cost]:
    """Of decode, frontend, forward, write, and of all."""
    clips = read_manifest(manifest).clips
    runner = Runner(
        encoder, device=choose_device(options.device), dtype=options.dtype, layers=(encoder.depth,)
    )
    decoding = decode_ahead(
        clips, sample_rate=encoder.sample_rate, max_seconds=decode_seconds(encoder), workers=cores(),
        ahead=2 * BATCH,
    )  # fmt: skip
    decode, decoded = timed(lambda: [sound for _, sound in decoding])
    waveforms = [sound.waveform for sound in decoded if isinstance(sound, Decoded)]
    runner.features(waveforms[:1])
    batches = [waveforms[start : start + BATCH] for start in range(0, len(waveforms), BATCH)]
    frontend, features = timed(lambda: [own for batch in batches for own in runner.features(batch)])
    full = by_shape(features)
    if options.compile:
        runner.compile(BATCH)
    runner.encode(full[0])
    forward, _ = timed(lambda: [finish(runner.encode(batch)) for batch in full])
    if isinstance(encoder, Ready):
        write, _ = timed(lambda: raw_write(folder, encoder, len(clips)))
    else:
        tokens = tokens_of(runner, waveforms[:8])
        write, _ = timed(lambda: cache_write(folder, runner, tokens, len(clips)))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        whole, done = timed(
            lambda: extract(
                manifest, out=Path(name) / "c.zarr", encoder=encoder, device=options.device,
                dtype=options.dtype, batch_size=BATCH, compiled=options.compile,
            )
        )  # fmt: skip
    assert done.encoded == len(clips), done.failed
    if options.compile:  # which takes a minute, once
        whole = whole._replace(wall=done.stages.wall)
    return [decode, frontend, forward, write, whole]


def decoding(folder: Path, options: argparse.Namespace) -> None:
    """Threads that decode against threads that each ask a process."""
    print(f"load average before: {os.getloadavg()[0]:.1f}\n")
    print("| clips | threads | processes | threads [ms] | processes [ms] |\n|---|---|---|---|---|")
    kinds = {
        "10 s of 44.1 kHz FLAC": sounds(folder / "flac", [10.0] * (128 if options.full else 8)),
        "0.1 s of 16 kHz WAV": sounds(folder / "wav", [0.1] * (4000 if options.full else 64), "wav", 16_000),
    }
    for name, manifest in kinds.items():
        clips = read_manifest(manifest).clips
        found = [[decoded(clips, timeout) for timeout in (None, 60.0)] for _ in range(options.repeats)]
        costs = list(zip(*found, strict=True))
        cells = [f"{1 / min(cost.wall for cost in own):,.0f}" for own in costs]
        cells += [f"{min(cost.processor for cost in own) * 1000:.2f}" for own in costs]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def decoded(clips: Sequence[Clip], timeout: float | None) -> Cost:
    """Of a clip with all cores, once the first quarter is there; without a timeout threads decode."""
    found = decode_ahead(
        clips, sample_rate=16_000, max_seconds=10.0, workers=cores(), ahead=2 * BATCH, timeout=timeout
    )
    count = len(clips) - sum(1 for _ in islice(found, len(clips) // 4))
    began, processor_began = time.perf_counter(), with_children()
    for done, _ in enumerate(found, start=1):
        if done == count:  # the processes are still there
            cost = Cost(time.perf_counter() - began, with_children() - processor_began)
    return Cost(*(seconds / count for seconds in cost))


def with_children() -> float:
    """[s] of processor time of this process and of those that it has."""
    pids = [
        pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return time.process_time() + sum(map(int, chain(*ticks))) / os.sysconf("SC_CLK_TCK")


def by_shape(features: Sequence[Tensor]) -> list[Tensor]:
    """Features in batches of one shape each, as full as they can be."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for feature in features:
        shapes.setdefault(feature.shape, []).append(feature)
    return [
        torch.stack(own[start : start + BATCH])
        for own in shapes.values()
        for start in range(0, len(own), BATCH)
    ]


def finish(encoded: Encoded) -> None:
    """Wait until the device is done."""
    for tokens in encoded.tokens.values():
        tokens[0, 0, 0].item()


def cache_write(folder: Path, runner: Runner, tokens: Sequence[ClipTokens], count: int) -> None:
    """Store tokens that are there, again and again."""
    layout = layout_of(runner, "bench", "float16", None, None, None)
    with (
        tempfile.TemporaryDirectory(dir=folder) as name,
        CacheWriter.create_or_open(Path(name) / "c.zarr", layout) as writer,
    ):
        for index in range(count):
            clip = tokens[index % len(tokens)]
            writer.add(str(index), index.to_bytes(16, "big"), clip.tokens, clip.cls, clip.valid)


def raw_write(folder: Path, encoder: Encoder, count: int) -> None:
    """Write as many bytes as such clips have, in files of about 192 MB, each made durable.

    All stay until the last is there, as those of a cache do: the memory of a file that is removed is there
    for the next, which a virtual machine otherwise gets page by page from its host.
    """
    clip = np.random.default_rng(0).bytes(encoder.grid[0] * encoder.grid[1] * encoder.dim * 2)
    with ExitStack() as files:
        for first in range(0, count, 256):
            file = files.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
            for _ in range(min(256, count - first)):
                file.write(clip)
            os.fsync(file.fileno())


def timed(work: Callable[[], Any]) -> tuple[Cost, Any]:
    began, processor_began = time.perf_counter(), time.process_time()
    result = work()
    return Cost(time.perf_counter() - began, time.process_time() - processor_began), result


def peak(folder: Path, clips: int) -> float:
    """[MB] of this process after it has extracted so many clips of one long recording."""
    random = np.random.default_rng(0)
    soundfile.write(folder / "long.wav", 0.1 * random.standard_normal(16_000 * 201), 16_000)
    rows = [f"long.wav,tone,{index},{index / 100:.2f},{index / 100 + 0.1:.2f}" for index in range(clips)]
    (folder / "clips.csv").write_text("\n".join(["path,labels,id,start,end", *rows]) + "\n")
    done = extract(folder / "clips.csv", out=folder / "c.zarr", encoder=Ready(64, 64))
    assert done.encoded == clips, done.failed
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def own_process(clips: int) -> int:
    command = [sys.executable, __file__, "--memory", str(clips)]
    return int(subprocess.run(command, check=True, text=True, capture_output=True).stdout)


def processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.processor()


if __name__ == "__main__":
    main()
