"""Tar archives read where they lie: the audio of ``a.ogg`` in ``x.tar.gz`` has the path ``x.tar.gz/a.ogg``.

A compressed archive can only be read on: going back means beginning anew. Whoever asks in the order of the
archive reads it once; the last members are kept for threads that come a little late.
"""

import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock

from featcache.errors import AudioError, InputError

SUFFIXES = (".tar.gz", ".tgz", ".tar")
KEPT_BYTES = 256 << 20  # of members that were passed
_ERRORS = (tarfile.TarError, zlib.error, EOFError, OSError, StopIteration)
_reading = Lock()


def is_member(path: Path) -> bool:
    """Whether a path is that of a file in an archive.

    >>> is_member(Path("none.tar.gz/a.ogg"))
    False
    """
    return path.parent.name.endswith(SUFFIXES) and path.parent.is_file()


def member_names(archive: Path) -> list[str]:
    """The names of the files in an archive, without folders, in its order; it is read whole for that.

    Raises:
        InputError: it cannot be read, or was cut off.
    """
    try:
        return list(_numbers(archive, archive.stat().st_mtime_ns))
    except _ERRORS as error:
        raise InputError(f"{archive} cannot be read as a tar archive ({error}); fetch it again") from None


def member_bytes(path: Path) -> bytes:
    """The content of a file in an archive.

    Raises:
        AudioError: there is no such file, or the archive cannot be read.
    """
    archive = path.parent
    try:
        with _reading:
            number = _numbers(archive, archive.stat().st_mtime_ns).get(path.name)
            if number is None:
                raise AudioError(f"{path}: the archive has no such file")
            return _reader(archive, archive.stat().st_mtime_ns).read(number)
    except _ERRORS as error:
        raise AudioError(f"{path}: the archive cannot be read ({error})") from None


class _Reader:
    """An archive, read on."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._begin()

    def _begin(self) -> None:
        self._files = _files(self._archive)
        self._next, self._size = 0, 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def read(self, number: int) -> bytes:
        if number < self._next and number not in self._kept:
            self._begin()
        while number >= self._next:
            _, data = next(self._files)
            self._kept[self._next] = data
            self._size += len(data)
            self._next += 1
            while self._size > KEPT_BYTES and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1])
        return self._kept[number]


def _files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The files of an archive in its order: names without folders, and contents."""
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file:
                yield Path(member.name).name, file.read()


@lru_cache(maxsize=64)
def _numbers(archive: Path, _mtime_ns: int) -> dict[str, int]:
    with tarfile.open(archive, "r|*") as tar:
        names = [Path(member.name).name for member in tar if member.isfile()]
    return {name: number for number, name in enumerate(names)}


@lru_cache(maxsize=4)
def _reader(archive: Path, _mtime_ns: int) -> _Reader:
    return _Reader(archive)
