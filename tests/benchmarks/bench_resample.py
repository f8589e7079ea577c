"""What would another resampler cost, and change? torchaudio's, as extraction uses it, against soxr.

    python tests/benchmarks/bench_resample.py            # small: log-mel patches of one clip
    python tests/benchmarks/bench_resample.py --full     # every architecture with golden weights, 16 clips

Clips are the first of ESC-10 beside the checkout (44.1 kHz, 5 s; seeded noise and tones where it is not
there), twice in a row, so that they have 10 s. Times are of one thread, as decoding has, the median over the
clips of the fastest of three. A token's difference is the length of what separates the two over the length
of torchaudio's token. ``float16`` is what storing alone changes.

Weights are the small golden ones of the authors' classes, with noise on every parameter: **not published
ones**, which may react more or less.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from safetensors.torch import load_file
from torch import Tensor

from featcache.audio.resample import resample
from featcache.devices import choose_device
from featcache.encoders import build_encoder, encoder_spec
from featcache.extraction.batcher import tokens_of
from featcache.extraction.runner import Runner

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ESC10 = Path(__file__).resolve().parents[3] / "shared/data/esc10"
RATE, SECONDS = 44_100, 10.0
SMALL = ("logmel",)
NAMES = ("audiomae", "beats", "eat", "asit", "ast", "dasheng", "m2d", "atst_frame", "passt", "logmel")
QUALITIES = ("HQ", "VHQ")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    waves = sounds(16 if options.full else 1)
    times(waves)
    differences(waves, NAMES if options.full else SMALL)


def sounds(count: int) -> list[Tensor]:
    """Waveforms (10 s, 44.1 kHz), of as many classes as there are."""
    by_class = [sorted(folder.iterdir()) for folder in sorted(ESC10.glob("0*")) if folder.is_dir()]
    files = [file for row in zip(*by_class, strict=False) for file in row if file.suffix in (".wav", ".ogg")]
    if len(files) >= count:
        waves = [soundfile.read(file, dtype="float32", always_2d=True) for file in files[:count]]
        assert all(rate == RATE for _, rate in waves)
        return [torch.from_numpy(np.tile(wave.mean(1), 2)[: round(SECONDS * RATE)]) for wave, _ in waves]
    random, found = torch.Generator().manual_seed(0), []
    for _ in range(count):
        moment = torch.arange(round(SECONDS * RATE)) / RATE
        pitch = 200 + 8000 * torch.rand(1, generator=random)
        noise = 0.05 * torch.randn(len(moment), generator=random)
        found.append(0.3 * torch.sin(2 * torch.pi * pitch * moment) + noise)
    return found


def by_soxr(quality: str) -> Callable[[Tensor, int], Tensor]:
    def resampled(wave: Tensor, rate: int) -> Tensor:
        return torch.from_numpy(soxr.resample(wave.numpy(), RATE, rate, quality=quality))

    return resampled


WAYS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "torchaudio": lambda wave, rate: resample(wave, RATE, rate),
    **{f"soxr {quality}": by_soxr(quality) for quality in QUALITIES},
}


def times(waves: list[Tensor]) -> None:
    """Print milliseconds for a clip, taking turns."""
    found: dict[tuple[str, int], list[float]] = {}
    for wave in waves:
        for rate in (16_000, 32_000):
            for _ in range(3):
                for name, way in WAYS.items():
                    began = time.perf_counter()
                    way(wave, rate)
                    found.setdefault((name, rate), []).append(time.perf_counter() - began)
    print("| resampler | 44.1 to 16 kHz [ms] | 44.1 to 32 kHz [ms] |\n|---|---|---|")
    for name in WAYS:
        medians = [np.median(np.min(np.reshape(found[name, rate], (-1, 3)), 1)) for rate in (16_000, 32_000)]
        print(f"| {name} | {' | '.join(f'{1000 * own:.2f}' for own in medians)} |")


def differences(waves: list[Tensor], names: tuple[str, ...]) -> None:
    """Print how far tokens move."""
    columns = [f"soxr {quality}, {what}" for quality in QUALITIES for what in ("median", "largest")]
    columns = ["encoder", *columns, "float16, median", "largest"]
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            encoder = built(name, Path(folder))
        runner = Runner(encoder, device=choose_device("cpu"), dtype="fp32", layers=(encoder.depth,))
        maps = {way: tokens(runner, waves, way) for way in WAYS}
        exact = maps["torchaudio"]
        cells = [statistics(maps[f"soxr {quality}"], exact) for quality in QUALITIES]
        cells.append(statistics(exact.half().float(), exact))
        print(f"| {name} | {' | '.join(f'{own:.1e}' for pair in cells for own in pair)} |", flush=True)


def statistics(moved: Tensor, exact: Tensor) -> tuple[float, float]:
    """Median and largest relative difference of tokens (n, D)."""
    relative = (moved - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-12)
    return float(relative.median()), float(relative.max())


def tokens(runner: Runner, waves: list[Tensor], way: str) -> Tensor:
    """The valid tokens of all clips, (n, D)."""
    rate, layer = runner.encoder.sample_rate, runner.encoder.depth
    clips = tokens_of(runner, [WAYS[way](wave, rate)[: round(SECONDS * rate)] for wave in waves])
    return torch.cat([clip.tokens[layer][: clip.valid] for clip in clips])


def built(name: str, folder: Path) -> Any:
    """An encoder with its golden weights."""
    if name == "logmel":
        return build_encoder("logmel")
    if name != "beats":
        weights = GOLDEN / name / "small_pert.safetensors"
        return encoder_spec(name).build(str(weights), SECONDS, num_heads=4)
    config = json.loads((GOLDEN / "beats/meta.json").read_text())["small_config"]
    model = load_file(GOLDEN / "beats/small_pert.safetensors")
    torch.save({"cfg": config, "model": model}, folder / "beats.pt")
    return encoder_spec("beats").build(str(folder / "beats.pt"), SECONDS)


if __name__ == "__main__":
    main()
