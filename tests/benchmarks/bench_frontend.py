"""How fast are the batched filter banks: clips a second against a loop over torchaudio, clip by clip.

    python tests/benchmarks/bench_frontend.py            # small, seconds
    python tests/benchmarks/bench_frontend.py --full     # the sizes of record
    python tests/benchmarks/bench_frontend.py --full --device cuda

Both sides see the same clips of seeded noise on the same device; the fastest of a few alternating
repeats is shown, and the largest difference of the two results (log-mel, or dB for Dasheng). ``at most``
is the ratio of FFT, mel product and log alone, in torch and of all frames at once.
"""

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import torchaudio
from torch import Tensor

from featcache.audio.fbank import KaldiFbank, in_bands, mel_bank
from featcache.audio.melspec import MelDecibels


class Case(NamedTuple):
    """One setting of a filter bank, and how torchaudio computes it for one clip."""

    name: str
    fbank: KaldiFbank | MelDecibels
    one: Callable[[Tensor], Tensor]
    sample_rate: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="batches of 32 of 10 s, and other lengths")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    print(
        f"{name}, {options.threads} threads, torch {torch.__version__}, torchaudio {torchaudio.__version__}\n"
    )
    print(
        "| filter bank | clips | featcache clips/s | torchaudio loop clips/s | ratio | at most | difference |"
    )
    print("|---|---|---|---|---|---|---|")
    for batch, seconds in ((32, 10.0), (32, 1.0), (128, 5.0)) if options.full else ((4, 10.0),):
        for case in cases(options.device) if options.full else cases(options.device)[:1]:
            compare(case, batch, seconds, options.device, options.repeats)


def cases(device: str) -> list[Case]:
    return [
        kaldi("Kaldi, hanning (AudioMAE, EAT, AST)", KaldiFbank(sample_rate=16_000, remove_mean=False)),
        kaldi(
            "Kaldi, povey (BEATs)",
            KaldiFbank(sample_rate=16_000, window="povey", gain=2.0**15, remove_mean=False),
        ),
        kaldi("Kaldi, 32 kHz (ASiT, Bird-MAE)", KaldiFbank(sample_rate=32_000, remove_mean=False)),
        decibels(device),
    ]


def kaldi(name: str, fbank: KaldiFbank) -> Case:
    def one(waveform: Tensor) -> Tensor:
        return torchaudio.compliance.kaldi.fbank(
            waveform[None] * fbank.gain,
            num_mel_bins=fbank.num_mels,
            sample_frequency=fbank.sample_rate,
            window_type=fbank.window,
            dither=0.0,
        )

    return Case(name, fbank, one, fbank.sample_rate)


def decibels(device: str) -> Case:
    mel = torchaudio.transforms.MelSpectrogram(16_000, n_fft=512, hop_length=160, f_max=8000.0, n_mels=64).to(
        device
    )
    to_db = torchaudio.transforms.AmplitudeToDB("power", top_db=120)
    return Case("mel in dB (Dasheng)", MelDecibels().to(device), lambda w: to_db(mel(w[None]))[0].T, 16_000)


@torch.inference_mode()
def compare(case: Case, batch: int, seconds: float, device: str, repeats: int) -> None:
    random = torch.Generator().manual_seed(0)
    waves = list((0.1 * torch.randn(batch, round(seconds * case.sample_rate), generator=random)).to(device))

    def loop() -> list[Tensor]:
        return [case.one(wave) for wave in waves]

    length = 2 ** (case.sample_rate // 40 - 1).bit_length()
    frames = torch.randn(round(seconds * 100) - 2, length, generator=random).to(device)
    bands = in_bands(mel_bank(case.sample_rate, 128).to(device))
    spectrum, squares = torch.fft.rfft(frames), torch.rand(len(frames), length + 2, device=device)

    def least() -> list[Tensor]:
        results = []
        for _ in waves:
            torch.fft.rfft(frames, out=spectrum)
            results.append(torch.cat([squares[:, a:b] @ band for a, b, band in bands], dim=1).log_())
        return results

    ours, theirs, bound = [], [], []
    for _ in range(repeats):
        bound.append(seconds_of(least, device))
        ours.append(seconds_of(lambda: case.fbank(waves), device))
        theirs.append(seconds_of(loop, device))
    gap = max((a - b).abs().max().item() for a, b in zip(case.fbank(waves), loop(), strict=True))
    most = f"{min(theirs) / min(bound):.1f}" if isinstance(case.fbank, KaldiFbank) else "–"
    rates = batch / min(ours), batch / min(theirs)
    print(
        f"| {case.name} | {batch} of {seconds:g} s | {rates[0]:.0f} | {rates[1]:.0f} "
        f"| **{rates[0] / rates[1]:.1f}** | {most} | {gap:.1e} |"
    )


def seconds_of(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def processor() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
    main()
