"""How fast is the prototype match: a training step of each form against the naive autograd step.

    python tests/benchmarks/bench_match.py            # small, seconds
    python tests/benchmarks/bench_match.py --full     # the sizes of record
    python tests/benchmarks/bench_match.py --full --device cuda

A step is forward and backward of match, linear layer and mean square; tokens need no gradient. The
naive step normalises float tokens, multiplies, takes the maximum, and leaves the rest to autograd.
Extra memory is the peak of the process (CPU) or of the allocator (CUDA) over what was there before.
"""

import argparse
import ctypes
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as nn_f

from featcache.heads.binarize import binarize
from featcache.heads.matching.match import engine, match

SMALL = {"cpu": ((4, 128, 768, 100),), "cuda": ((8, 128, 768, 200),)}
FULL = {
    "cpu": ((64, 512, 768, 1000), (64, 512, 768, 5270), (64, 10, 768, 1000)),
    "cuda": ((128, 512, 768, 5270), (128, 512, 768, 1000), (128, 1212, 768, 10540)),
}
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.int8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the sizes of record")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--repeats", type=int, default=7, help="the fastest of these is shown")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    print(f"{name}, {options.threads} threads, torch {torch.__version__}\n")
    print(
        "| (B, N, D) x P | prototypes | step | ms | naive / this | extra MB | naive / this | max difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for sizes in (FULL if options.full else SMALL)[options.device]:
        for binary in (True, False):
            compare(sizes, binary, options.device, options.repeats)


def compare(sizes: tuple[int, int, int, int], binary: bool, device: str, repeats: int) -> None:
    """Print the rows of one size; every dtype is matched against the naive step of the same tokens."""
    B, N, D, P = sizes
    torch.manual_seed(0)
    tokens = torch.randn(B, N, D, device=device)
    latent = (torch.randn(P, D, device=device) * 0.02).requires_grad_()
    classify = nn.Linear(P, max(2, P // 20), device=device)

    def prototypes() -> Tensor:
        return binarize(latent) if binary else latent

    def naive() -> Tensor:
        similarity = nn_f.normalize(tokens, dim=-1) @ nn_f.normalize(prototypes(), dim=-1).T
        return step(similarity.amax(dim=1), classify)

    runs: dict[str, Callable[[], object]] = {"naive float32": naive}
    apart = {"naive float32": "0"}
    if device == "cuda":
        halves = tokens.view(B * N, D).bfloat16(), latent.detach().bfloat16()
        runs["bare bfloat16 product"] = lambda: torch.mm(halves[0], halves[1].T)
    for dtype in DTYPES:
        stored = as_stored(tokens, dtype)
        used = engine(stored, prototypes()).__name__.rpartition(".")[-1]
        name = f"{used} {str(dtype)[6:]}"
        runs[name] = lambda stored=stored: step(match(stored, prototypes())[0], classify)  # type: ignore[misc]
        apart[name] = f"{difference(stored, prototypes()):.1e}"
    seconds, extra = measure(runs, device, repeats)
    for name in runs:
        speed = f"{seconds[name] * 1e3:.1f} | {seconds['naive float32'] / seconds[name]:.1f}"
        memory = f"{extra[name] / 1e6:.0f} | {extra['naive float32'] / extra[name]:.0f}"
        kind = "binary" if binary else "float"
        print(f"| {B}, {N}, {D} x {P} | {kind} | {name} | {speed} | {memory} | {apart.get(name, '')} |")


def as_stored(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    return (tokens * 30).round().clamp(-127, 127).to(dtype) if dtype == torch.int8 else tokens.to(dtype)


def step(scores: Tensor, classify: nn.Linear) -> Tensor:
    loss: Tensor = classify(scores).square().mean()
    loss.backward()
    return loss


def difference(tokens: Tensor, prototypes: Tensor) -> float:
    """Largest difference of a score from the reference on the same (stored) tokens, first 4 clips."""
    with torch.no_grad():
        unit = nn_f.normalize(tokens[:4].float(), dim=-1)
        reference = (unit @ nn_f.normalize(prototypes, dim=-1).T).amax(dim=1)
        return float((match(tokens[:4], prototypes)[0] - reference).abs().max())


def measure(
    runs: dict[str, Callable[[], object]], device: str, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the fastest run of each, and bytes at the peak of one run over those before it.

    The runs take turns, so that what else the machine does falls on all alike.
    """
    extra = {}
    for name, run in runs.items():
        run()  # warm up: compile, tune, first touch
        extra[name] = peak_cuda(run) if device == "cuda" else peak_cpu(run)
    seconds = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            start = now(device)
            run()
            seconds[name] = min(seconds[name], now(device) - start)
    return seconds, extra


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_cuda(run: Callable[[], object]) -> float:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return max(torch.cuda.max_memory_allocated() - before, 1)


def peak_cpu(run: Callable[[], object]) -> float:
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # or freed pages kept for later would hide what is used
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    before = resident("VmRSS")
    run()
    return max(resident("VmHWM") - before, 4096)


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.machine()


if __name__ == "__main__":
    main()
