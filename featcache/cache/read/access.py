"""Ways to bring clips from shard files into a caller's buffer: mapped, read, or kept in memory."""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from featcache.cache.format.codecs import Bytes, codec_named
from featcache.cache.format.layout import ArraySpec
from featcache.cache.format.shard_index import REPAIR
from featcache.cache.read.columns import ClipIndex, Place
from featcache.cache.read.fastest import Fastest, numbers_of_threads
from featcache.cache.read.shard_files import ShardFile, ShardFiles
from featcache.cache.read.threads import Threads
from featcache.cache.read.whole import unreadable
from featcache.errors import CacheError

PREAD_THREADS = 8

_SHARED = 2**20  # [bytes] a read of less is not worth a second thread anywhere
_PROBES = 4


class Access(Protocol):
    """What every way of reading offers; ``spec`` names the array, rows count clips."""

    def read(self, spec: ArraySpec, rows: Sequence[int], out: Bytes) -> None:
        """Clips into the rows of ``out`` (B, row_bytes), uncompressed."""

    def view(self, spec: ArraySpec, row: int) -> Bytes:
        """One clip (row_bytes,), without copying where that is possible; read-only."""

    def prefetch(self, spec: ArraySpec, rows: Sequence[int]) -> None:
        """Have these clips brought into memory in the background."""


class MapAccess:
    """Copies from mapped files, having asked the kernel for what its page cache lacks.

    How many threads copy is found out while reading, for reads of each size: where one core moves all that
    the memory can, a second one only costs; elsewhere two are half as fast again.
    """

    def __init__(self, files: ShardFiles, clips: ClipIndex) -> None:
        self._files, self._clips = files, clips
        self._counts = numbers_of_threads()
        self._threads = Threads(self._counts[-1])
        self._fastest: dict[tuple[int, str | None], Fastest] = {}
        self._ahead = Threads(1)

    def read(self, spec: ArraySpec, rows: Sequence[int], out: Bytes) -> None:
        """As in `Access`."""
        places = self._clips.places(rows)
        for start in range(0, len(places), self._files.at_once):
            part = slice(start, start + self._files.at_once)
            self._read_part(spec, places[part], out[part])

    def _read_part(self, spec: ArraySpec, places: list[Place], out: Bytes) -> None:
        files = [self._files.get(spec, shard) for shard, _ in places]
        cold = _advise_if_cold(files, places)
        decode = decoder(spec)

        def copy(i: int) -> None:
            decode(_chunk(files[i], places[i][1]), out[i])

        def share(threads: int) -> None:
            self._threads.share(copy, len(places), threads)

        if out.nbytes < _SHARED and spec.codec is None:
            share(1)
        elif cold:  # the disk decides, and nothing is learned
            share(min(2, self._counts[-1]))
        else:
            size = out.nbytes.bit_length(), spec.codec
            if size not in self._fastest:
                self._fastest[size] = Fastest(self._counts)
            self._fastest[size].run(share, out.nbytes)

    def view(self, spec: ArraySpec, row: int) -> Bytes:
        """As in `Access`."""
        ((shard, slot),) = self._clips.places([row])
        chunk = _chunk(self._files.get(spec, shard), slot)
        return chunk if spec.codec is None and chunk.size else _decoded(spec, chunk)

    def prefetch(self, spec: ArraySpec, rows: Sequence[int]) -> None:
        """As in `Access`."""
        prefetch_ranges(self._ahead, self._files, spec, self._clips.places(rows))


class PreadAccess:
    """Threaded reads into the buffer, for file systems that serve mapped pages one by one."""

    def __init__(self, files: ShardFiles, clips: ClipIndex) -> None:
        self._files, self._clips = files, clips
        self._threads = Threads(PREAD_THREADS)
        self._ahead = Threads(1)

    def read(self, spec: ArraySpec, rows: Sequence[int], out: Bytes) -> None:
        """As in `Access`."""
        places = self._clips.places(rows)
        decode = decoder(spec)

        def read(i: int) -> None:
            shard, slot = places[i]
            file = self._files.get(spec, shard)
            offset, length = file.chunk(slot)
            if spec.codec is None and length:
                read_exactly(file, offset, out[i])
            else:
                chunk = np.empty(length, dtype=np.uint8)
                read_exactly(file, offset, chunk)
                decode(chunk, out[i])

        self._threads.share(read, len(places))

    def view(self, spec: ArraySpec, row: int) -> Bytes:
        """As in `Access`, but always a copy."""
        out: Bytes = np.empty((1, spec.row_bytes), dtype=np.uint8)
        self.read(spec, [row], out)
        out.flags.writeable = False
        return out.reshape(-1)

    def prefetch(self, spec: ArraySpec, rows: Sequence[int]) -> None:
        """As in `Access`."""
        prefetch_ranges(self._ahead, self._files, spec, self._clips.places(rows))


def decoder(spec: ArraySpec) -> Callable[[Bytes, Bytes], None]:
    """The function that turns a stored chunk into the clip's bytes."""
    codec = codec_named(spec.codec)
    compressor = codec.build(spec.item_bytes) if codec else None

    def decode(chunk: Bytes, out: Bytes) -> None:
        if not chunk.size:  # Zarr stores no chunk of zeros
            out[:] = 0
        elif compressor is None:
            np.copyto(out, chunk)
        else:
            try:
                compressor.decode(chunk, out)
            except Exception as error:  # compressors raise many kinds
                raise CacheError(
                    f"a clip of {spec.name} cannot be decompressed ({error}); {REPAIR}"
                ) from error

    return decode


def read_exactly(file: ShardFile, offset: int, out: Bytes) -> None:
    """Fill ``out`` from the file."""
    done = 0
    while done < out.nbytes:
        try:
            count = os.preadv(file.descriptor, [out[done:].data], offset + done)
        except OSError as error:
            raise unreadable(file.name, error) from error
        if count == 0:
            raise CacheError(f"{file.name} is cut short; {REPAIR}")
        done += count


def prefetch_ranges(threads: Threads, files: ShardFiles, spec: ArraySpec, places: list[Place]) -> None:
    """Ask the kernel for exact ranges from a background thread: queueing them can take milliseconds."""

    def ask() -> None:
        for shard, slot in places:
            _willneed(files.get(spec, shard), slot)

    threads.submit(ask)


def _chunk(file: ShardFile, slot: int) -> Bytes:
    offset, length = file.chunk(slot)
    return file.bytes[offset : offset + length]


def _decoded(spec: ArraySpec, chunk: Bytes) -> Bytes:
    out = np.empty(spec.row_bytes, dtype=np.uint8)
    decoder(spec)(chunk, out)
    out.flags.writeable = False
    return out


def _advise_if_cold(files: list[ShardFile], places: list[Place]) -> bool:
    """Ask the kernel for clips that are not in memory; whether there were some."""
    # A page fault reads what the kernel guesses, one fault after the other; all exact ranges at
    # once are several times faster. Asking for a clip that is already in memory costs a fifth of
    # copying it, so a few clips are tried first.
    step = max(1, len(places) // _PROBES)
    if not any(_is_cold(files[i], places[i][1]) for i in range(0, len(places), step)):
        return False
    for file, (_, slot) in zip(files, places, strict=True):
        _willneed(file, slot)
    return True


def _is_cold(file: ShardFile, slot: int) -> bool:
    """Whether reading the last byte of a clip would have to wait for the disk."""
    offset, length = file.chunk(slot)
    try:
        os.preadv(file.descriptor, [bytearray(1)], offset + max(length - 1, 0), os.RWF_NOWAIT)
    except OSError as error:
        # Where the file system cannot tell, asking once too often does no harm.
        return error.errno in (errno.EAGAIN, errno.EOPNOTSUPP)
    return False


def _willneed(file: ShardFile, slot: int) -> None:
    offset, length = file.chunk(slot)
    os.posix_fadvise(file.descriptor, offset, length, os.POSIX_FADV_WILLNEED)
