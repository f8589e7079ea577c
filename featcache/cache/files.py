"""Files that are either whole and durable or not there at all, with their checksums."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from featcache.cache.codecs import Bytes
from featcache.errors import CacheError

PARTIAL = ".partial"  # suffix of a file that is being written; removed by the next writer

# google_crc32c holds the GIL: in steps of this many bytes nobody waits long for it.
_STEP = 4 * 2**20
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "file too large",
}


def partial_path(path: Path) -> Path:
    """The temporary name of a file that is being written."""
    return path.with_name(path.name + PARTIAL)


def write_partial(path: Path, pieces: Iterable[Any], durable: bool = True) -> dict[str, Any]:
    """Write ``pieces`` (bytes or uint8 arrays) under the temporary name of ``path``.

    Returns:
        The ledger's entry of the file: ``{"bytes": length, "crc32c": eight hex digits}``.
    """
    checksum, length = 0, 0
    descriptor = os.open(partial_path(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        for piece in pieces:
            data: Bytes = np.frombuffer(piece, dtype=np.uint8)
            for start in range(0, data.nbytes, _STEP):
                step = data[start : start + _STEP]
                checksum = google_crc32c.extend(checksum, step)
                _write_all(descriptor, step)
                # Starts writing these pages back without waiting: the disk works while the next
                # ones are copied, a quarter less time than one long wait in fsync. They stay in
                # the page cache, for a page that is being written back is not dropped.
                os.posix_fadvise(descriptor, length, step.nbytes, os.POSIX_FADV_DONTNEED)
                length += step.nbytes
        if durable:
            os.fsync(descriptor)
    except BaseException:
        partial_path(path).unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    return {"bytes": length, "crc32c": f"{checksum:08x}"}


def replace_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half of one."""
    write_partial(path, [data], durable)
    os.replace(partial_path(path), path)
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_crc32c(path: Path) -> tuple[int, str]:
    """Length in bytes and CRC-32C (eight hex digits) of a file."""
    checksum, length = 0, 0
    buffer: Bytes = np.empty(_STEP, dtype=np.uint8)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer.data):
            checksum = google_crc32c.extend(checksum, buffer[:count])
            length += count
    return length, f"{checksum:08x}"


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turn a failed write into one sentence that says what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        reason = _FULL.get(error.errno or 0, error.strerror or str(error))
        raise CacheError(
            f"cannot write the token cache {cache}: {reason} ({error.filename or 'while writing a shard'}); "
            "the finished shards stay good: make room, then run the same command again to go on"
        ) from error


def remove_partials(directory: Path) -> None:
    """Remove what a killed writer left under temporary names."""
    if directory.is_dir():
        for entry in os.scandir(directory):
            if entry.name.endswith(PARTIAL):
                os.unlink(entry.path)


def _write_all(descriptor: int, data: Bytes) -> None:
    while data.size:
        data = data[os.write(descriptor, data.data) :]
