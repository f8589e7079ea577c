"""The ledger: which shards are finished, how many clips each holds, and what its files add up to.

Zarr does not store a chunk that is all zeros and reads unwritten rows as zeros, so which chunks
exist says nothing about which clips are finished; the ledger does. One JSON line per finished
shard, appended only after every file of the shard is durable under its final name.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.cache.format.durable import replace_file
from featcache.errors import CacheError
from featcache.files import open_own, reason
from featcache.jsonl import Line, append_lines, encode, read_lines

LEDGER = "ledger.jsonl"
_MOST = 2**48  # no number of a shard, of clips or of bytes is larger
_CRC = re.compile("[0-9a-f]{8}").fullmatch


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished shard."""

    shard: int
    clips: int
    files: dict[str, dict[str, Any]]  # path below the cache -> {"bytes": length, "crc32c": hex}

    def record(self) -> dict[str, Any]:
        """The entry as it stands in the ledger."""
        return {"shard": self.shard, "clips": self.clips, "files": self.files}


def read_ledger(cache: Path) -> Iterator[Entry]:
    """The finished shards, in the order in which they were finished.

    A last line without a line break was cut short by a crash and does not count.

    Raises:
        CacheError: another line cannot be read.
    """
    for line in ledger_lines(cache):
        entry = parse(line)
        if entry is not None:
            yield entry
        elif not line.torn:
            raise CacheError(
                f"{cache / LEDGER} line {line.number} cannot be read; 'featcache cache verify --repair' "
                "drops it, and the next extract writes that shard again"
            )


def ledger_lines(cache: Path) -> Iterator[Line]:
    """The lines of the ledger.

    Raises:
        CacheError: the file cannot be read.
    """
    try:
        yield from read_lines(cache / LEDGER)
    except OSError as error:
        raise CacheError(f"{cache / LEDGER} cannot be read: {reason(error)}") from error


class Finished:
    """The finished shards of a cache: how many clips each holds, and what its files add up to.

    Attributes:
        counts: shard -> clips
        shard_rows: clips in a full shard

    Raises:
        CacheError: a line of the ledger cannot be read, or tells of more clips than a shard holds.
    """

    def __init__(self, cache: Path, shard_rows: int) -> None:
        self._cache, self.shard_rows = cache, shard_rows
        self.counts: dict[int, int] = {}
        self._files: dict[str, tuple[int, int]] = {}
        for entry in read_ledger(cache):
            if entry.clips > shard_rows:
                raise CacheError(
                    f"{cache / LEDGER} tells of {entry.clips} clips in shard {entry.shard}, of which a shard "
                    f"holds {shard_rows}; 'featcache cache verify --repair' drops the shard"
                )
            self.counts[entry.shard] = entry.clips
            for name, file in entry.files.items():
                self._files[name] = file["bytes"], int(file["crc32c"], 16)

    def file(self, name: str) -> tuple[int, int]:
        """Length and CRC-32C of a file, by its path below the cache.

        Raises:
            CacheError: the ledger does not list it.
        """
        if name not in self._files:
            raise CacheError(
                f"{self._cache / LEDGER} does not list {name}; 'featcache cache verify --repair' drops "
                "the shard"
            )
        return self._files[name]


def append_entry(cache: Path, entry: Entry) -> None:
    """Add a finished shard; durable on return."""
    append_lines(cache / LEDGER, [entry.record()])


def rewrite_ledger(cache: Path, entries: Iterable[Entry]) -> None:
    """Replace the ledger in one step."""
    replace_file(cache / LEDGER, "".join(encode(entry.record()) for entry in entries).encode())


def drop_torn_line(cache: Path) -> None:
    """Cut off a last line that a crash left without its line break, so that the next one starts clean."""
    with os.fdopen(open_own(cache / LEDGER, os.O_RDWR | os.O_CREAT), "r+b") as file:
        data = file.read()
        if not data.endswith(b"\n"):
            os.ftruncate(file.fileno(), data.rfind(b"\n") + 1)


def parse(line: Line) -> Entry | None:
    """The entry on a line; None where there is none to be read."""
    record = line.record
    if record is None or line.torn:
        return None
    try:
        entry = Entry(shard=record["shard"], clips=record["clips"], files=record["files"])
        numbers = [entry.shard, entry.clips - 1, *(file["bytes"] for file in entry.files.values())]
        texts = [file["crc32c"] for file in entry.files.values()]
    except (KeyError, TypeError, AttributeError):
        return None
    sound = all(type(number) is int and 0 <= number < _MOST for number in numbers)
    return entry if sound and all(type(text) is str and _CRC(text) for text in texts) else None
