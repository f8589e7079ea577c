"""What bench_store.py measures of writing and opening."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from featcache.cache import CacheLayout, CacheWriter

Array = np.ndarray[Any, Any]

SHARD_BYTES = 192 * 2**20


def write_rates(folder: Path, clips: int, tokens: int, dim: int, turns: int) -> dict[str, list[float]]:
    """GB/s of getting the same clips durably onto the disk, in files of one shard each."""
    pool = np.random.default_rng(0).standard_normal((64, tokens, dim)).astype(np.float16)
    methods: dict[str, Callable[[Path, Array, int], None]] = {
        "raw write + fsync": raw,
        "featcache CacheWriter": ours("float16"),
        "featcache CacheWriter, from float32": ours("float16", torch.float32),
        "featcache CacheWriter, int8": ours("int8"),
        "zarr-python, whole shards (no fsync, no checksum)": with_zarr,
    }
    rates: dict[str, list[float]] = {name: [] for name in methods}
    random = np.random.default_rng(1)
    for _ in range(turns):
        for name in random.permutation(list(methods)):
            target = folder / "written"
            target.mkdir()
            start = time.perf_counter()
            methods[name](target, pool, clips)
            rates[name].append(clips * pool[0].nbytes / (time.perf_counter() - start) / 1e9)
            shutil.rmtree(target)
            os.sync()
    return rates


def raw(target: Path, pool: Array, clips: int) -> None:
    per_shard = max(1, SHARD_BYTES // pool[0].nbytes)
    for first in range(0, clips, per_shard):
        descriptor = os.open(target / f"{first}", os.O_WRONLY | os.O_CREAT)
        for index in range(first, min(first + per_shard, clips)):
            os.write(descriptor, pool[index % 64])
        os.fsync(descriptor)
        os.close(descriptor)


def ours(dtype: str, source: torch.dtype = torch.float16) -> Callable[[Path, Array, int], None]:
    def write(target: Path, pool: Array, clips: int) -> None:
        tokens = torch.from_numpy(pool).to(source)
        layout = CacheLayout(
            fingerprint={}, layers=(12,), num_tokens=pool.shape[1], dim=pool.shape[2],
            grid=(8, pool.shape[1] // 8), has_cls=False, dtype=dtype,
        )  # fmt: skip
        with CacheWriter.create_or_open(target / "a.zarr", layout) as writer:
            for index in range(clips):
                writer.add(
                    f"{index}", index.to_bytes(16, "big"), {12: tokens[index % 64]}, None, pool.shape[1]
                )

    return write


def with_zarr(target: Path, pool: Array, clips: int) -> None:
    per_shard = max(1, SHARD_BYTES // pool[0].nbytes)
    array = zarr.create_array(
        target / "a.zarr",
        shape=(clips, *pool.shape[1:]),
        shards=(per_shard, *pool.shape[1:]),
        chunks=(1, *pool.shape[1:]),
        dtype=pool.dtype,
        compressors=None,
    )
    for first in range(0, clips, per_shard):
        array[first : first + per_shard] = pool[np.arange(first, min(first + per_shard, clips)) % 64]


_OPEN = """
import os, sys, time
from featcache.cache import TokenCache
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
before, start = rss(), time.perf_counter()
cache = TokenCache.open(sys.argv[1])
seconds = time.perf_counter() - start
peak = int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3
print(f"{len(cache)} clips in {len(cache.clips.shards)} shards: opened in {seconds:.3f} s; "
      f"{rss() - before:.0f} MB more than the imports' {before:.0f} MB, "
      f"{peak:.0f} MB at most")
"""


def open_two_million(folder: Path) -> str:
    """Open a cache of 2,000,000 clips of which only metadata and ledger exist, in a new process."""
    layout = CacheLayout(fingerprint={}, layers=(12,), num_tokens=512, dim=768, grid=(8, 64), has_cls=True)
    path, per_shard = folder / "large.zarr", layout.shard_rows
    CacheWriter.create_or_open(path, layout).close()
    lines = []
    for shard in range(-(-2_000_000 // per_shard)):
        names = layout.shard_files(shard)
        files = ", ".join(f'"{name}": {{"bytes": 201330692, "crc32c": "0123abcd"}}' for name in names)
        clips = min(per_shard, 2_000_000 - shard * per_shard)
        lines.append(f'{{"shard": {shard}, "clips": {clips}, "files": {{{files}}}}}\n')
    (path / "ledger/01234567.jsonl").write_text("".join(lines))
    command = [sys.executable, "-c", _OPEN, str(path)]
    return "### Opening\n\n" + subprocess.run(command, check=True, capture_output=True, text=True).stdout
