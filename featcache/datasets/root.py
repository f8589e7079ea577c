"""The folder that a data set was unpacked in, as adapters look into it."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from featcache.errors import InputError, MissingError
from featcache.manifest.files import printable
from featcache.manifest.folders import AUDIO_SUFFIXES

# What data sets are also passed on as; libsndfile reads none of it.
UNREADABLE = {".m4a", ".mp4", ".aac", ".webm", ".mkv", ".wma"}
SHOWN = 8


class Root:
    """Where a data set lies.

    Args:
        path: its folder, or the one above
        title: of the data set, for messages
        splits: those that are wanted; all if empty
    """

    def __init__(self, path: Path, title: str, splits: Collection[str] = ()) -> None:
        self.path, self.title, self.splits = path, title, splits

    def wants(self, split: str) -> bool:
        """Whether clips of a split are asked for; lists of others need not be there."""
        return not self.splits or split in self.splits

    def look(self, *names: str) -> Path | None:
        """The first of some files or folders that is there, in the root or one folder below it.

        Raises:
            InputError: several folders below the root have it.
        """
        for name in names:
            if (self.path / name).exists():
                return self.path / name
        for name in names:
            found = sorted(path for path in self.path.glob(f"*/{name}"))
            if len(found) > 1:
                places = ", ".join(printable(path) for path in found[:SHOWN])
                raise InputError(f"{self.title} is there more than once ({places}); name one of the folders")
            if found:
                return found[0]
        return None

    def find(self, *names: str) -> Path:
        """The first of some files or folders that is there.

        Raises:
            MissingError: none is; the message says what was looked for and what is there.
        """
        found = self.look(*names)
        if found is None:
            inside = [printable(path.name) for path in sorted(self.path.iterdir())]
            more = f" and {len(inside) - SHOWN} more" if len(inside) > SHOWN else ""
            listed = ", ".join(inside[:SHOWN]) or "nothing"
            raise MissingError(
                f"no {self.title} at {printable(self.path)}: looked for {' or '.join(names)}, "
                f"found {listed}{more}; name the folder that holds it"
            )
        return found


class AudioFiles:
    """The audio files below a folder, by name without suffix.

    A file that libsndfile cannot read is found, too, where there is no other: its clip is said to need
    converting. A folder that is not there has no files.

    Args:
        by_name: names alone, at any depth; else paths below the folder
    """

    def __init__(self, folder: Path, *, by_name: bool = False) -> None:
        self.folder = folder
        self.files: dict[str, Path] = {}
        for place, names in _walk(folder):
            prefix = "" if by_name else Path(place).relative_to(folder).as_posix() + "/"
            for name in names:
                key = plain(name)
                if key != name and not name.startswith("._"):  # those are of a Mac's archives
                    self._keep(prefix.removeprefix("./") + key, Path(place, name))

    def _keep(self, key: str, path: Path) -> None:
        if key not in self.files or not readable(self.files[key]):
            self.files[key] = path

    def place(self, name: str) -> Path:
        """The file of this name, or where it would be."""
        key = plain(name)
        return self.files.get(key, self.folder / f"{key}.wav")


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and the names of their files, in order; links are followed, but no folder is entered twice."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(folders)
        if real not in seen:
            yield place, sorted(names)
        seen.add(real)


def plain(name: str) -> str:
    """A file's name without the suffix of audio; what else has a dot stays.

    >>> plain("a_30.000_40.000.wav"), plain("a_30.000_40.000")
    ('a_30.000_40.000', 'a_30.000_40.000')
    """
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in AUDIO_SUFFIXES | UNREADABLE else name


def readable(path: Path) -> bool:
    """Whether libsndfile reads files of this suffix."""
    return path.suffix.lower() not in UNREADABLE
