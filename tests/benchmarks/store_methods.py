"""The stores that bench_store.py compares, filled with the same clips, and how each is read."""

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore
import torch
import zarr
from safetensors.numpy import load_file, save_file
from torch.utils.data import DataLoader

from featcache.cache import CacheLayout, CacheWriter, TokenCache

Array = np.ndarray[Any, Any]
Read = Callable[[Sequence[Array]], None]  # reads batches of rows, one after the other

_libc = ctypes.CDLL(None)


class Data:
    """The same clips in every store; clip i begins with the value i, so that a wrong clip shows."""

    def __init__(self, folder: Path, clips: int, tokens: int, dim: int) -> None:
        self.folder, self.clips, self.shape = folder, clips, (tokens, dim)
        self.clip_bytes = 2 * tokens * dim
        self.pool = np.random.default_rng(0).standard_normal((64, tokens, dim)).astype(np.float16)
        self.out = torch.zeros((64, tokens, dim), dtype=torch.float16)
        self.buffer = self.out.numpy()
        write_cache(folder / "cache.zarr", (self.clip(i) for i in range(clips)), tokens, dim)
        self._fill_others()
        os.sync()

    def clip(self, index: int) -> Array:
        """The tokens of one clip; the array is reused."""
        clip = self.pool[index % 64]
        clip[0, 0] = index
        return clip

    def files(self) -> list[Path]:
        """Every file of every store."""
        return [file for file in self.folder.rglob("*") if file.is_file()]

    def cache_files(self) -> list[Path]:
        """The token shards of the cache."""
        return list((self.folder / "cache.zarr/tokens").rglob("c.*"))

    def rate(self, read: Read, rows: Sequence[Array]) -> float:
        """GB/s of one call."""
        start = time.perf_counter()
        read(rows)
        return sum(map(len, rows)) * self.clip_bytes / (time.perf_counter() - start) / 1e9

    def check(self, batch: Array, rows: Array) -> None:
        """Stop where a method gives other clips than asked for."""
        if not np.array_equal(batch[:, 0, 0], rows.astype(np.float16)):
            raise SystemExit("a method read the wrong clips")

    def evict(self) -> None:
        """Drop every file from the page cache; needs them clean and not mapped."""
        for file in self.files():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def _fill_others(self) -> None:
        raw = np.lib.format.open_memmap(self.folder / "raw.npy", "w+", np.float16, (self.clips, *self.shape))
        with h5py.File(self.folder / "clips.h5", "w") as file:
            dataset = file.create_dataset("tokens", raw.shape, np.float16, chunks=(1, *self.shape))
            for name in ("npy", "safetensors"):
                (self.folder / name).mkdir()
            for index in range(self.clips):
                clip = self.clip(index)
                raw[index] = clip
                dataset[index] = clip
                np.save(self.folder / f"npy/{index}.npy", clip)
                save_file({"tokens": clip}, self.folder / f"safetensors/{index}.safetensors")
        raw.flush()


def write_cache(path: Path, clips: Iterator[Array], tokens: int, dim: int) -> None:
    """A float16 cache of one layer, without cls."""
    layout = CacheLayout(
        fingerprint={"encoder": "benchmark"}, layers=(12,), num_tokens=tokens, dim=dim,
        grid=(8, tokens // 8), has_cls=False,
    )  # fmt: skip
    with CacheWriter.create_or_open(path, layout) as writer:
        for index, clip in enumerate(clips):
            writer.add(f"{index}", index.to_bytes(16, "big"), {12: torch.from_numpy(clip)}, None, tokens)


def page_in(data: Data) -> None:
    """Read every file once."""
    for file in data.files():
        file.read_bytes()


def residency(files: Sequence[Path]) -> float:
    """The fraction of the files' pages that is in the page cache."""
    resident = total = 0
    for file in files:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            view = np.frombuffer(mapped, np.uint8)
            pages = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
            address, vector = ctypes.c_void_p(view.ctypes.data), ctypes.c_void_p(pages.ctypes.data)
            _libc.mincore(address, ctypes.c_size_t(len(mapped)), vector)
            resident, total = resident + int((pages & 1).sum()), total + len(pages)
            del view
    return resident / total


def memcpy(data: Data) -> Read:
    """One copy per batch from memory that no cache level holds."""
    source = np.concatenate([data.pool] * 4)

    def read(rows: Sequence[Array]) -> None:
        for number, _ in enumerate(rows):
            np.copyto(data.buffer, source[64 * (number % 4) : 64 * (number % 4) + 64])

    return read


def batches(load: Callable[[Data, Array], Array | None]) -> Callable[[Data], Read]:
    """A method from a function that reads one batch, into ``data.buffer`` unless it returns another."""

    def build(data: Data) -> Read:
        def read(rows: Sequence[Array]) -> None:
            for some in rows:
                result = load(data, some)
                data.check(data.buffer if result is None else result, some)

        return read

    return build


def gather(reader: str, ahead: bool = False, fresh: bool = False) -> Callable[[Data], Read]:
    """Our reader; ``fresh`` opens the cache anew, for mapped pages cannot be evicted."""

    def build(data: Data) -> Read:
        opened = None if fresh else TokenCache.open(data.folder / "cache.zarr", reader)

        def read(rows: Sequence[Array]) -> None:
            cache = opened or TokenCache.open(data.folder / "cache.zarr", reader)
            for number, some in enumerate(rows):
                if ahead and number + 1 < len(rows):
                    cache.prefetch(rows[number + 1])
                cache.gather(some, out=data.out)
                data.check(data.buffer, some)

        return read

    return build


def loader(workers: int) -> Callable[[Data], Read]:
    """Our dataset's own loader, given the order of the clips."""

    def build(data: Data) -> Read:
        ours = TokenCache.open(data.folder / "cache.zarr", "map").dataset().loader(64, workers=workers)

        def read(wanted: Sequence[Array]) -> None:
            order = torch.from_numpy(np.concatenate(wanted))
            ours._tasks._clips, ours._tasks.order = len(order), lambda: order  # type: ignore[method-assign]
            for some, (tokens, _) in zip(wanted, ours, strict=True):
                data.check(tokens.numpy(), some)

        return read

    return build


def plain_loader(workers: int) -> Callable[[Data], Read]:
    """A DataLoader over our dataset, as any dataset is used."""

    def build(data: Data) -> Read:
        rows: list[int] = []
        dataset = TokenCache.open(data.folder / "cache.zarr", "map").dataset()
        batches = DataLoader(dataset, 64, sampler=rows, num_workers=workers, persistent_workers=workers > 0)

        def read(wanted: Sequence[Array]) -> None:
            rows[:] = np.concatenate(wanted).tolist()
            for some, (tokens, _) in zip(wanted, batches, strict=True):
                data.check(tokens.numpy(), some)

        return read

    return build


def pread(threads: int) -> Callable[[Data], Read]:
    """Reads of the raw file by so many threads, a clip each."""

    def build(data: Data) -> Read:
        def read(rows: Sequence[Array]) -> None:
            descriptor = os.open(data.folder / "raw.npy", os.O_RDONLY)
            header = os.fstat(descriptor).st_size - data.clips * data.clip_bytes

            def one(item: tuple[int, int]) -> None:
                position, row = item
                os.preadv(descriptor, [data.buffer[position]], header + int(row) * data.clip_bytes)

            with ThreadPoolExecutor(threads) as pool:
                for some in rows:
                    list(pool.map(one, enumerate(some)))
                    data.check(data.buffer, some)
            os.close(descriptor)

        return read

    return build


@batches
def zarr_oindex(data: Data, rows: Array) -> Array:
    array = zarr.open_array(data.folder / "cache.zarr/tokens/12", mode="r")
    return np.asarray(array.oindex[rows])


@batches
def zarr_loop(data: Data, rows: Array) -> None:
    array = zarr.open_array(data.folder / "cache.zarr/tokens/12", mode="r")
    for position, row in enumerate(rows):
        data.buffer[position] = array[int(row)]


def with_tensorstore(data: Data) -> Read:
    path = f"{data.folder / 'cache.zarr/tokens/12'}/"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
    array = tensorstore.open(spec, read=True).result()

    def read(rows: Sequence[Array]) -> None:
        for some in rows:
            data.check(array[some].read().result(), some)

    return read


@batches
def h5py_chunks(data: Data, rows: Array) -> None:
    with h5py.File(data.folder / "clips.h5") as file:
        for position, row in enumerate(rows):
            file["tokens"].read_direct(data.buffer, np.s_[int(row)], np.s_[position])


@batches
def memmap_copy(data: Data, rows: Array) -> None:
    raw = np.load(data.folder / "raw.npy", mmap_mode="r")
    for position, row in enumerate(rows):
        data.buffer[position] = raw[row]


@batches
def npy_files(data: Data, rows: Array) -> None:
    for position, row in enumerate(rows):
        data.buffer[position] = np.load(data.folder / f"npy/{row}.npy")


@batches
def safetensors_files(data: Data, rows: Array) -> None:
    for position, row in enumerate(rows):
        data.buffer[position] = load_file(data.folder / f"safetensors/{row}.safetensors")["tokens"]


READERS: dict[str, Callable[[Data], Read]] = {
    "featcache gather (map)": gather("map"),
    "featcache gather (pread)": gather("pread"),
    "featcache dataset.loader, 0 workers": loader(0),
    "featcache dataset.loader, 2 workers": loader(2),
    "DataLoader over featcache, 2 workers": plain_loader(2),
    "zarr-python oindex, same store": zarr_oindex,
    "zarr-python clip by clip, same store": zarr_loop,
    "tensorstore, same store": with_tensorstore,
    "h5py, one chunk a clip": h5py_chunks,
    "np.memmap of a raw file": memmap_copy,
    "a .npy file a clip": npy_files,
    "a safetensors file a clip": safetensors_files,
}

COLD: dict[str, Callable[[Data], Read]] = {
    "featcache gather, next batch prefetched": gather("map", ahead=True, fresh=True),
    "featcache gather, nothing prefetched": gather("map", fresh=True),
    "featcache gather (pread)": gather("pread", fresh=True),
    "mapped page faults (np.memmap)": memmap_copy,
    **{f"pread by {threads} threads": pread(threads) for threads in (1, 4, 8, 16)},
    "zarr-python oindex, same store": zarr_oindex,
    "tensorstore, same store": with_tensorstore,
    "h5py, one chunk a clip": h5py_chunks,
    "a .npy file a clip": npy_files,
}

# These read one batch a turn, the others four.
SLOW = {name for name in {**READERS, **COLD} if name.startswith(("zarr", "tensorstore", "h5py", "a "))}
