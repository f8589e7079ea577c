"""Files that are either whole and durable or not there at all, with their checksums."""

import errno
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c

from featcache.cache.format.codecs import Bytes
from featcache.errors import CacheError
from featcache.files import open_own, open_regular

PARTIAL = ".partial"  # suffix of a file that is being written; removed by a later writer

# Bytes after which their writeback starts; `crc32c` and `os.write` let other threads run meanwhile.
_STEP = 4 * 2**20
_WRITER = re.compile(rf"(\.(?P<host>\w+)-(?P<pid>\d+)-[0-9a-f]{{8}})?{re.escape(PARTIAL)}$")
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "file too large",
}


def partial_path(path: Path, writer: str = "") -> Path:
    """The temporary name of a file that is being written; ``writer`` keeps several writers' apart."""
    return path.with_name(path.name + (f".{writer}" if writer else "") + PARTIAL)


def writer_name() -> str:
    """A name for temporary files that no other writer has: host, process and a random number."""
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


class PartialFile:
    """A file under its temporary name, which grows until `finish`; it is open from the start."""

    def __init__(self, path: Path, writer: str = "") -> None:
        self._path = partial_path(path, writer)
        # A new file, never the one that has this name: that may be a link to somewhere else.
        if os.path.lexists(self._path):
            self._path.unlink()
        self._descriptor = open_own(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self._checksum, self._length, self._started = 0, 0, 0

    def write(self, data: Any) -> None:
        """Append bytes or a uint8 array."""
        data = np.frombuffer(data, dtype=np.uint8)
        for start in range(0, data.nbytes, _STEP):
            step = data[start : start + _STEP]
            self._checksum = crc32c(step, self._checksum)
            _write_all(self._descriptor, step)
            self._length += step.nbytes
            if self._length - self._started >= _STEP:
                self._start_writeback()

    def finish(self, durable: bool = True) -> dict[str, Any]:
        """Close the file.

        Returns:
            The ledger's entry of the file: ``{"bytes": length, "crc32c": eight hex digits}``.
        """
        if durable:
            os.fsync(self._descriptor)
        self._close()
        return {"bytes": self._length, "crc32c": f"{self._checksum:08x}"}

    def discard(self) -> None:
        """Close and remove the file, finished or not; what cannot be removed, the next writer removes."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _start_writeback(self) -> None:
        # Starts writing these pages back without waiting: the disk works while the next ones are
        # copied, a quarter less time than one long wait in fsync. They stay in the page cache, for
        # a page that is being written back is not dropped.
        count = self._length - self._started
        os.posix_fadvise(self._descriptor, self._started, count, os.POSIX_FADV_DONTNEED)
        self._started = self._length

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def write_partial(path: Path, data: Any, durable: bool = True, writer: str = "") -> dict[str, Any]:
    """Write ``data`` (bytes or a uint8 array) under the temporary name of ``path``.

    Returns:
        As `PartialFile.finish`.
    """
    file = PartialFile(path, writer)
    try:
        file.write(data)
        return file.finish(durable)
    except BaseException:
        file.discard()
        raise


def replace_file(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half of one."""
    writer = writer_name()
    write_partial(path, data, durable, writer)
    partial = partial_path(path, writer)
    try:
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def publish_file(path: Path, data: bytes) -> bool:
    """Write a small file durably unless one of that name is there: of several writers one wins.

    Returns:
        Whether this one did.
    """
    writer = writer_name()
    write_partial(path, data, writer=writer)
    partial = partial_path(path, writer)
    try:
        os.link(partial, path)  # unlike a rename it never replaces; NFS has it too
    except FileExistsError:
        if partial.stat().st_nlink < 2:  # else NFS made the link, lost its answer, and was asked again
            return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        os.replace(partial, path)  # a file system without links: as good as its lock
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


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
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while count := file.readinto(buffer.data):
            checksum = crc32c(buffer[:count].data, checksum)
            length += count
    return length, f"{checksum:08x}"


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turn a failed write into one sentence that says what is safe and how to go on."""
    try:
        yield
    except OSError as error:
        reason = FULL.get(error.errno or 0, error.strerror or str(error))
        advice = "make room, then " if error.errno in FULL else ""
        raise CacheError(
            f"cannot write the token cache {cache}: {reason} ({error.filename or 'while writing a shard'}); "
            f"the finished shards stay good: {advice}run the same command again to go on"
        ) from error


def partials(directory: Path) -> Iterator[tuple[Path, str]]:
    """The temporary files in a directory, each with the name that it was to have."""
    if directory.is_dir():
        for entry in os.scandir(directory):
            if entry.name.endswith(PARTIAL):
                yield Path(entry.path), _WRITER.sub("", entry.name)


def is_left_over(partial: Path) -> bool:
    """Whether the writer of a temporary file is surely gone: a process of this host, or none is named."""
    writer = _WRITER.search(partial.name)
    if writer is None or writer["pid"] is None:
        return True
    if writer["host"] != _host():
        return False
    try:
        os.kill(int(writer["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _host() -> str:
    return re.sub("[^A-Za-z0-9]", "_", socket.gethostname())


def _write_all(descriptor: int, data: Bytes) -> None:
    while data.size:
        data = data[os.write(descriptor, data.data) :]
