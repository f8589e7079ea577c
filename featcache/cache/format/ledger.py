"""The ledger: which shards are finished, how many clips each holds, and what its files add up to.

Zarr does not store a chunk that is all zeros and reads unwritten rows as zeros, so which chunks
exist says nothing about which clips are finished; the ledger does. One JSON line per finished
shard, appended only after every file of the shard is durable under its final name.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featcache.cache.format.durable import replace_file
from featcache.errors import CacheError
from featcache.jsonl import Line, append_lines, encode, read_lines

LEDGER = "ledger.jsonl"


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
    for line in read_lines(cache / LEDGER):
        entry = parse(line)
        if entry is not None:
            yield entry
        elif not line.torn:
            raise CacheError(
                f"{cache / LEDGER} line {line.number} cannot be read; 'featcache cache verify --repair' "
                "drops it, and the next extract writes that shard again"
            )


def append_entry(cache: Path, entry: Entry) -> None:
    """Add a finished shard; durable on return."""
    append_lines(cache / LEDGER, [entry.record()])


def rewrite_ledger(cache: Path, entries: Iterable[Entry]) -> None:
    """Replace the ledger in one step."""
    replace_file(cache / LEDGER, "".join(encode(entry.record()) for entry in entries).encode())


def drop_torn_line(cache: Path) -> None:
    """Cut off a last line that a crash left without its line break, so that the next one starts clean."""
    path = cache / LEDGER
    if not path.exists():
        path.touch()
        return
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)


def parse(line: Line) -> Entry | None:
    """The entry on a line; None where there is none to be read."""
    record = line.record
    if record is None or line.torn:
        return None
    try:
        entry = Entry(shard=record["shard"], clips=record["clips"], files=record["files"])
        numbers = [entry.shard, entry.clips, *(file["bytes"] for file in entry.files.values())]
        texts = [file["crc32c"] for file in entry.files.values()]
    except (KeyError, TypeError, AttributeError):
        return None
    sound = all(type(number) is int for number in numbers) and all(type(text) is str for text in texts)
    return entry if sound else None
