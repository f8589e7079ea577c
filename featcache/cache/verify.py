"""Finding damaged shards, and taking them out so that extraction writes them again."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from featcache.cache.format.durable import file_crc32c, writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER, Entry, parse, rewrite_ledger
from featcache.cache.format.metadata import array_document, read_attributes, write_metadata
from featcache.cache.format.shard_index import ids_file
from featcache.cache.write.lock import WriterLock
from featcache.cache.write.recovery import shard_row_count
from featcache.jsonl import read_lines


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not as it was written."""

    shard: int | None  # None: not in a shard (metadata, or a ledger line that cannot be read)
    file: str  # path below the cache
    reason: str


def verify_cache(path: Path, *, progress: bool = False) -> list[Damage]:
    """Read every file that the ledger lists and compare lengths and checksums.

    A single wrong byte in any of them is found. The shapes in the arrays' zarr.json are compared
    with the ledger too.

    Raises:
        MissingError, CacheError: there is no cache, or its group metadata cannot be read.
    """
    layout = CacheLayout.from_attributes(read_attributes(path), path)
    entries, damages = _read_ledger(path)
    total = sum(record["bytes"] for entry in entries.values() for record in entry.files.values())
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="verify", disable=None if progress else True
    ) as bar:
        for entry in entries.values():
            damages += _check_shard(path, layout, entry)
            bar.update(sum(record["bytes"] for record in entry.files.values()))
    return damages + list(_check_metadata(path, layout, entries))


def repair_cache(path: Path, damages: Iterable[Damage]) -> list[int]:
    """Take the damaged shards out of the ledger and remove their files; their numbers.

    The next extraction finds their clips missing and fills the same shards again.

    Raises:
        CacheError: another process writes to the cache.
    """
    attributes = read_attributes(path) | {"complete": False}
    layout = CacheLayout.from_attributes(attributes, path)
    bad = sorted({damage.shard for damage in damages if damage.shard is not None})
    lock = WriterLock(path)
    try:
        with writing(path):
            entries = _read_ledger(path)[0]
            kept = {shard: entry for shard, entry in entries.items() if shard not in bad}
            # The ledger first: a crash in between leaves files that nobody counts.
            rewrite_ledger(path, kept.values())
            for shard in bad:
                for name in _shard_files(layout, shard):
                    (path / name).unlink(missing_ok=True)
            counts = {shard: entry.clips for shard, entry in kept.items()}
            rows = shard_row_count(counts, layout.shard_rows)
            write_metadata(path, layout, attributes, rows, durable=True)
    finally:
        lock.release()
    return bad


def _read_ledger(path: Path) -> tuple[dict[int, Entry], list[Damage]]:
    """The entries that can be read, and the lines that cannot."""
    entries: dict[int, Entry] = {}
    damages: list[Damage] = []
    for line in read_lines(path / LEDGER):
        entry = parse(line)
        if entry is not None:
            if entry.shard in entries:
                damages.append(Damage(shard=entry.shard, file=LEDGER, reason="is listed twice"))
            entries[entry.shard] = entry
        elif not line.torn:  # else cut short by a crash: the next writer drops it
            damages.append(Damage(shard=None, file=LEDGER, reason=f"line {line.number} cannot be read"))
    return entries, damages


def _shard_files(layout: CacheLayout, shard: int) -> list[str]:
    return [*(spec.chunk_file(shard) for spec in layout.arrays()), ids_file(shard)]


def _check_shard(path: Path, layout: CacheLayout, entry: Entry) -> Iterator[Damage]:
    expected = _shard_files(layout, entry.shard)
    if sorted(expected) != sorted(entry.files):
        yield Damage(shard=entry.shard, file=LEDGER, reason="lists other files than the layout has")
        return
    for name in expected:
        reason = _check_file(path / name, entry.files[name])
        if reason:
            yield Damage(shard=entry.shard, file=name, reason=reason)
            return  # one reason is enough to write the shard again
    # The checksums are right, so the ids are as written and can judge the ledger's count.
    if len(json.loads((path / ids_file(entry.shard)).read_text(encoding="utf-8"))) != entry.clips:
        yield Damage(shard=entry.shard, file=LEDGER, reason=f"{entry.clips} clips, but its files hold others")


def _check_file(path: Path, record: dict[str, int | str]) -> str | None:
    try:
        length, checksum = file_crc32c(path)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if length != record["bytes"]:
        return f"has {length} bytes instead of {record['bytes']}"
    if checksum != record["crc32c"]:
        return f"has the checksum {checksum} instead of {record['crc32c']}"
    return None


def _check_metadata(path: Path, layout: CacheLayout, entries: dict[int, Entry]) -> Iterator[Damage]:
    counts = {shard: entry.clips for shard, entry in entries.items()}
    rows = shard_row_count(counts, layout.shard_rows)
    for spec in layout.arrays():
        name = f"{spec.name}/zarr.json"
        try:
            document = json.loads((path / name).read_bytes())
        except (OSError, ValueError):
            document = None
        if document != array_document(spec, rows, layout.shard_rows):
            yield Damage(shard=None, file=name, reason="differs from what the layout and the ledger say")
