"""Which clips make which shard: written down once, before any of them is stored.

It follows from the manifest alone, and not from which clips happen to decode: a clip that fails leaves its
place empty. So any number of writers know their shards without asking, and a shard is always made of the
same clips. A manifest with further clips adds a part to the plan, after the shards that are there.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from crc32c import crc32c

from featcache.cache.format.durable import publish_file
from featcache.cache.format.layout import KEY_BYTES
from featcache.errors import CacheError
from featcache.files import read_bytes, reason

PLAN = "plan"
_MOST = 2**30  # [bytes] of one part: 67 million clips


class ShardPlan:
    """The planned shards of a cache: each part is a file, named after its first shard."""

    def __init__(self, cache: Path, shard_rows: int) -> None:
        self._folder, self._shard_rows = cache / PLAN, shard_rows
        self._parts: dict[int, list[bytes]] = {}
        self._read()

    def shards(self) -> Iterator[tuple[int, list[bytes]]]:
        """Each shard's number and the keys of its clips."""
        for first, keys in sorted(self._parts.items()):
            for number, start in enumerate(range(0, len(keys), self._shard_rows), start=first):
                yield number, keys[start : start + self._shard_rows]

    def __contains__(self, shard: int) -> bool:
        return any(first <= shard < self._end(first) for first in self._parts)

    def add(self, keys: Iterable[bytes], after: Iterable[int]) -> None:
        """Plan further clips, in this order, in shards after those planned and those in ``after``.

        Where another writer has added a part meanwhile, that counts instead: see what it lacks.
        """
        content = b"".join(keys)
        if content:
            first = max([0, *(self._end(part) for part in self._parts), *(shard + 1 for shard in after)])
            publish_file(self._folder / str(first), content + crc32c(content).to_bytes(4, "little"))
            self._read()

    def _end(self, first: int) -> int:
        return first + -(-len(self._parts[first]) // self._shard_rows)

    def _read(self) -> None:
        self._folder.mkdir(exist_ok=True)
        for file in self._folder.iterdir():
            if file.name.isdecimal() and int(file.name) not in self._parts:
                self._parts[int(file.name)] = read_part(file)


def read_part(file: Path) -> list[bytes]:
    """The keys of one part.

    Raises:
        CacheError: it cannot be read, or is not as it was written.
    """
    try:
        content = read_bytes(file, _MOST)
    except OSError as error:
        raise CacheError(f"{file} cannot be read: {reason(error)}") from error
    keys, checksum = content[:-4], content[-4:]
    if len(keys) % KEY_BYTES or crc32c(keys).to_bytes(4, "little") != checksum:
        raise CacheError(f"{file} is damaged: its checksum is wrong; copy the cache again")
    return [keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES)]
