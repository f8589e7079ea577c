"""A folder's disk: how much is free, whether it is near, and how fast it writes and reads."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROBE_BYTES = 64 * 2**20
_STEP = 4 * 2**20
_NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs", "9p", "afs")
_MOUNTS = Path("/proc/self/mounts")


class FileSystem(NamedTuple):
    """What a folder lies on."""

    kind: str  # ext4, nfs4 and so on; "unknown" where the system does not say
    network: bool


class DiskRates(NamedTuple):
    """[bytes/s] of one file, from memory to durable, and from disk to memory."""

    write: float
    read: float


def nearest_folder(path: Path) -> Path:
    """The folder itself, or the one above it that is there already."""
    path = path.absolute()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def free_bytes(path: Path) -> int:
    """[bytes] that a user may still write where ``path`` is, or will be."""
    return shutil.disk_usage(nearest_folder(path)).free


def file_system(path: Path, mounts: Path = _MOUNTS) -> FileSystem:
    """The file system that ``path`` is on, or will be.

    Args:
        mounts: the system's table of them, in the form of Linux
    """
    folder = nearest_folder(path).resolve()
    try:
        rows = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return FileSystem("unknown", False)
    found = [(_unescaped(row[1]), row[2]) for row in rows if len(row) > 2]
    above = [(point, kind) for point, kind in found if point == folder or point in folder.parents]
    if not above:
        return FileSystem("unknown", False)
    # The longest name counts, and of equal ones the last: it was mounted over the others.
    kind = max(enumerate(above), key=lambda each: (len(each[1][0].parts), each[0]))[1][1]
    return FileSystem(kind, kind.startswith(_NETWORK))


def _unescaped(point: str) -> Path:
    return Path(point.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\"))


def disk_rates(folder: Path, num_bytes: int = PROBE_BYTES) -> DiskRates:
    """Write a file that no file system can shrink, make it durable, and read it back; it is removed.

    Raises:
        OSError: the folder cannot be written to, or is full.
    """
    block = np.random.default_rng(0).bytes(_STEP)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".featcache-rate-", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(max(1, num_bytes // _STEP)):
            file.write(block)
        os.fsync(file.fileno())
        write = file.tell() / max(time.perf_counter() - began, 1e-9)
        return DiskRates(write, read_rate([Path(file.name)]))


def read_rate(files: Iterable[Path]) -> float:
    """[bytes/s] at which files are read from the disk, one after the other.

    They come from the disk as far as the system drops a file's pages when asked; where it does not (some
    network file systems), this is the rate of memory.
    """
    into, length, seconds = bytearray(_STEP), 0, 0.0
    for path in files:
        with path.open("rb", buffering=0) as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            while count := file.readinto(into):
                length += count
            seconds += time.perf_counter() - began
    return length / max(seconds, 1e-9)
