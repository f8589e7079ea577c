"""The ledger: which shards are finished, how many clips each holds, and what its files add up to.

Zarr does not store a chunk that is all zeros and reads unwritten rows as zeros, so which chunks
exist says nothing about which clips are finished; the ledger does. A finished shard has a file of its own,
``ledger/123.json``, written after all others; now and then these are folded into one, so that a large cache
opens quickly. The ledger is the union of all files in the folder, and of format 1's ``ledger.jsonl``.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crc32c import crc32c

from featcache.cache.format.durable import publish_file, sync_directory
from featcache.errors import CacheError
from featcache.files import reason
from featcache.jsonl import Line, encode, read_lines

LEDGER = "ledger"
OLD_LEDGER = "ledger.jsonl"  # of format 1
_MOST = 2**48  # no number of a shard, of clips or of bytes is larger
_CRC = re.compile("[0-9a-f]{8}").fullmatch
_OWN = re.compile(r"\d+\.json").fullmatch
_FOLDED = re.compile(r"[0-9a-f]{8}\.jsonl").fullmatch
_TRIES = 100


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One finished shard."""

    shard: int
    clips: int
    files: dict[str, dict[str, Any]]  # path below the cache -> {"bytes": length, "crc32c": hex}
    # Key of a clip (hex) that was to be in the shard -> {"id", "reason"}: why it could not be decoded.
    failed: dict[str, dict[str, str]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The entry as it stands in the ledger."""
        failed = {"failed": self.failed} if self.failed else {}
        return {"shard": self.shard, "clips": self.clips, "files": self.files, **failed}


def entry_file(shard: int) -> str:
    """Path below the cache of a shard's own entry."""
    return f"{LEDGER}/{shard}.json"


def pieces(cache: Path) -> list[str]:
    """The files of the ledger that are there: paths below the cache, in the order in which they are read.

    Raises:
        CacheError: the folder cannot be listed.
    """
    try:
        names = [file.name for file in (cache / LEDGER).iterdir()]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise CacheError(f"{cache / LEDGER} cannot be read: {reason(error)}") from error
    kept = sorted(name for name in names if _OWN(name) or _FOLDED(name))
    old = [OLD_LEDGER] if (cache / OLD_LEDGER).exists() else []
    return [*old, *(f"{LEDGER}/{name}" for name in kept)]


def read_ledger(cache: Path) -> Iterator[Entry]:
    """The finished shards in the order of their numbers, each once.

    Raises:
        CacheError: a line cannot be read.
    """
    entries = {entry.shard: entry for entry in _entries(cache)}
    return iter([entries[shard] for shard in sorted(entries)])


def _entries(cache: Path) -> Iterator[Entry]:
    """All entries, in any order, and some more than once."""
    for name, line in ledger_lines(cache):
        entry = parse(line)
        if entry is not None:
            yield entry
        elif not line.torn:
            raise CacheError(
                f"{cache / name} line {line.number} cannot be read; 'featcache cache verify --repair' "
                "drops it, and the next extract writes that shard again"
            )


def ledger_lines(cache: Path) -> Iterator[tuple[str, Line]]:
    """Every line of the ledger, with its file below the cache; some come more than once.

    A torn last line, of a writer of format 1, does not count.

    Raises:
        CacheError: a file cannot be read.
    """
    for _ in range(_TRIES):
        names = pieces(cache)
        for name in names:
            try:
                for line in read_lines(cache / name):
                    yield name, line
            except OSError as error:
                raise CacheError(f"{cache / name} cannot be read: {reason(error)}") from error
        # Folding makes one file, then takes away those it stands for: what is listed meanwhile may lack both.
        after = pieces(cache)
        if set(names) <= set(after) and not any(_is_folded(name) for name in set(after) - set(names)):
            return
    raise CacheError(f"{cache / LEDGER} does not come to rest; try again")


class Finished:
    """The finished shards of a cache: how many clips each holds, and what its files add up to.

    Attributes:
        counts: shard -> clips
        shard_rows: clips in a full shard
        failed: key of a clip that could not be decoded (hex) -> its id and the reason

    Raises:
        CacheError: a line of the ledger cannot be read, or tells of more clips than a shard holds.
    """

    def __init__(self, cache: Path, shard_rows: int) -> None:
        self._cache, self.shard_rows = cache, shard_rows
        self.counts: dict[int, int] = {}
        self.failed: dict[str, dict[str, str]] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self.read_again()

    def read_again(self) -> None:
        """Take in what was finished since."""
        self._folded = _folded(self._cache)  # before reading: what is folded meanwhile is read once more
        for entry in _entries(self._cache):
            self.add(entry)
        self.counts = dict(sorted(self.counts.items()))

    def add(self, entry: Entry) -> None:
        """Take in one shard."""
        if entry.clips > self.shard_rows:
            raise CacheError(
                f"{self._cache / LEDGER} tells of {entry.clips} clips in shard {entry.shard}, of which a "
                f"shard holds {self.shard_rows}; 'featcache cache verify --repair' drops the shard"
            )
        self.counts[entry.shard] = entry.clips
        self.failed.update(entry.failed)
        self._files.update(entry.files)

    def has_now(self, shard: int) -> bool:
        """Whether a shard is finished by now, by whichever writer."""
        if shard not in self.counts and (
            (self._cache / entry_file(shard)).exists() or _folded(self._cache) != self._folded
        ):
            self.read_again()
        return shard in self.counts

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
        file = self._files[name]
        return file["bytes"], int(file["crc32c"], 16)


def fold(cache: Path) -> None:
    """Bring all finished shards into one file. Any number of processes may do so beside each other.

    Its name is the checksum of its content, so what two of them make of the same shards is the same file,
    and what they make of different ones stays side by side until the next time.
    """
    before = pieces(cache)
    if len(before) > 1 or not all(name in _folded(cache) and name != OLD_LEDGER for name in before):
        rewrite_ledger(cache, read_ledger(cache), before)


def rewrite_ledger(cache: Path, entries: Iterable[Entry], replaced: Iterable[str] | None = None) -> None:
    """Write one file of these entries, then remove the ``replaced`` ones; all others unless given."""
    replaced = pieces(cache) if replaced is None else replaced
    text = "".join(encode(entry.record()) for entry in entries).encode()
    name = f"{LEDGER}/{crc32c(text):08x}.jsonl"
    (cache / LEDGER).mkdir(exist_ok=True)
    publish_file(cache / name, text)
    for other in set(replaced) - {name}:
        (cache / other).unlink(missing_ok=True)
    sync_directory(cache / LEDGER)


def parse(line: Line) -> Entry | None:
    """The entry on a line; None where there is none to be read."""
    record = line.record
    if record is None or line.torn:
        return None
    try:
        entry = Entry(**record)
        for number in (entry.shard, entry.clips):
            _check(number)
        for file in entry.files.values():  # of two million clips there are 47,000
            _check(file["bytes"])
            if not _CRC(file["crc32c"]):
                return None
        for failure in entry.failed.values():
            if type(failure["id"]) is not str or type(failure["reason"]) is not str:
                return None
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    return entry


def _check(number: Any) -> None:
    if type(number) is not int or not 0 <= number < _MOST:
        raise ValueError


def _folded(cache: Path) -> list[str]:
    return [name for name in pieces(cache) if _is_folded(name)]


def _is_folded(name: str) -> bool:
    return name == OLD_LEDGER or bool(_FOLDED(name.removeprefix(f"{LEDGER}/")))
