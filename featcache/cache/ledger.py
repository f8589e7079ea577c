"""The ledger: which shards are finished, how many clips each holds, and what its files add up to.

Zarr does not store a chunk that is all zeros and reads unwritten rows as zeros, so which chunks
exist says nothing about which clips are finished; the ledger does. One JSON line per finished
shard, appended only after every file of the shard is durable under its final name.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.cache.files import replace_file
from featcache.errors import CacheError

LEDGER = "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished shard."""

    shard: int
    clips: int
    files: dict[str, dict[str, Any]]  # path below the cache -> {"bytes": length, "crc32c": hex}

    def line(self) -> bytes:
        """The entry as it stands in the ledger."""
        record = {"shard": self.shard, "clips": self.clips, "files": self.files}
        return (json.dumps(record) + "\n").encode()


def read_ledger(cache: Path) -> Iterator[Entry]:
    """The finished shards, in the order in which they were finished.

    A last line without a line break was cut short by a crash and does not count.

    Raises:
        CacheError: another line cannot be read.
    """
    if not (cache / LEDGER).exists():
        return
    with (cache / LEDGER).open("rb") as file:
        for number, line in enumerate(file, start=1):
            entry = parse_line(line)
            if entry is not None:
                yield entry
            elif line.endswith(b"\n"):
                raise CacheError(
                    f"{cache / LEDGER} line {number} cannot be read; 'featcache cache verify --repair' "
                    "drops it, and the next extract writes that shard again"
                )


def append_entry(cache: Path, entry: Entry) -> None:
    """Add a finished shard; durable on return."""
    descriptor = os.open(cache / LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        line = entry.line()
        if os.write(descriptor, line) < len(line):
            raise OSError(28, os.strerror(28), str(cache / LEDGER))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rewrite_ledger(cache: Path, entries: Iterable[Entry]) -> None:
    """Replace the ledger in one step."""
    replace_file(cache / LEDGER, b"".join(entry.line() for entry in entries))


def drop_torn_line(cache: Path) -> None:
    """Cut off a last line that a crash left without its line break, so that the next one starts clean."""
    path = cache / LEDGER
    if not path.exists():
        path.touch()
        return
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def parse_line(line: bytes) -> Entry | None:
    """The entry on a line; None where there is none to be read."""
    try:
        record = json.loads(line)
        entry = Entry(shard=record["shard"], clips=record["clips"], files=record["files"])
        numbers = [entry.shard, entry.clips, *(file["bytes"] for file in entry.files.values())]
        texts = [file["crc32c"] for file in entry.files.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(type(number) is int for number in numbers) and all(type(text) is str for text in texts)
    return entry if sound and line.endswith(b"\n") else None
