"""How fast is the token cache? Reading, warm and cold, writing and opening, beside other stores.

    python tests/benchmarks/bench_store.py            # small: seconds
    python tests/benchmarks/bench_store.py --full     # 2,048 clips of 512 x 768 float16: minutes, 10 GB

Prints Markdown tables. Every ratio is to a reference of the same run: a plain copy in memory (warm),
the best parallel pread (cold), a raw write with fsync (write). The methods take turns in shuffled
order, so that a slow moment of the machine hits all of them alike; medians are over the turns.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from store_methods import COLD, READERS, SLOW, Data, memcpy, page_in, residency
from store_tables import describe_machine, table
from store_writing import open_two_million, write_rates

Rates = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--dir", type=Path, help="scratch folder, on the disk to be measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["warm", "cold", "write", "open"])
    options = parser.parse_args()
    clips, tokens, turns = (2048, 512, 9) if options.full else (512, 256, 5)
    folder = Path(tempfile.mkdtemp(prefix="bench_store_", dir=options.dir or Path.cwd()))
    random = np.random.default_rng(options.seed)
    try:
        print(
            describe_machine(folder),
            f"{clips} clips of {tokens} x 768 float16, batches of 64 random clips.\n",
        )
        if {"warm", "cold"} & set(options.only):
            data = Data(folder, clips, tokens, 768)
        if "warm" in options.only:
            print(table("Warm page cache", warm(data, turns, random), "memcpy"))
        if "cold" in options.only:
            print(table("Cold page cache", cold(data, turns, random), "parallel pread (best)"))
        if "write" in options.only:
            print(table("Writing", write_rates(folder, clips, tokens, 768, turns), "raw write + fsync"))
        if "open" in options.only:
            print(open_two_million(folder))
    finally:
        shutil.rmtree(folder)


def warm(data: Data, turns: int, random: np.random.Generator) -> Rates:
    """GB/s of each method with all files in the page cache."""
    methods = {"memcpy": memcpy(data), **{name: build(data) for name, build in READERS.items()}}
    page_in(data)
    for read in methods.values():  # opens files, starts workers, maps pages
        read([random.choice(data.clips, 64, replace=False)])
    rates: Rates = {name: [] for name in methods}
    for _ in range(turns):
        rows = [random.choice(data.clips, 64, replace=False) for _ in range(4)]
        for name in random.permutation(list(methods)):
            rates[name].append(data.rate(methods[name], rows[: 1 if name in SLOW else 4]))
    return rates


def cold(data: Data, turns: int, random: np.random.Generator) -> Rates:
    """GB/s of each method on clips that are not in the page cache; each turn reads its own clips."""
    methods: dict[str, Callable[[Sequence[np.ndarray]], None]] = {
        name: build(data) for name, build in COLD.items()
    }
    rates: Rates = {name: [] for name in methods}
    for _ in range(max(2, turns // 3)):
        for name in random.permutation(list(methods)):
            order = random.permutation(data.clips)
            rows = [order[start : start + 64] for start in range(0, min(len(order), 256), 64)]
            data.evict()
            left = residency(data.cache_files())
            if left > 0.01:
                sys.exit(f"{left:.0%} of the cache stayed in memory: is {data.folder} on a disk?")
            rates[name].append(data.rate(methods[name], rows[: 1 if name in SLOW else 4]))
    # The fastest number of threads stands for what the disk can do in parallel.
    preads = [name for name in rates if name.startswith("pread")]
    best = max(preads, key=lambda name: float(np.median(rates[name])))
    rates["parallel pread (best)"] = rates[best]
    return rates


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
