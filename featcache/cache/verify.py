"""Finding damaged shards, and taking them out so that extraction writes them again."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featcache.cache.format.durable import file_crc32c, replace_file, writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER, Entry, ledger_lines, parse, rewrite_ledger
from featcache.cache.format.metadata import documents, read_attributes, write_metadata
from featcache.cache.format.shard_index import decode_ids, ids_file
from featcache.cache.read.columns import read_scale
from featcache.cache.write.folders import check_folders
from featcache.cache.write.lock import WriterLock, writer_of
from featcache.cache.write.plan import PLAN, read_part
from featcache.cache.write.recovery import shard_row_count
from featcache.errors import CacheError
from featcache.files import read_bytes, read_json, reason
from featcache.jsonl import encode, read_lines
from featcache.records import RECORDS, own_manifest_problem


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not as it was written, or that could not be read."""

    shard: int | None  # None: not in a shard (metadata, records, or a ledger line that cannot be read)
    file: str  # path below the cache
    reason: str
    # The disk or its rights refused, or it holds labels, of which no other copy is here: never removed.
    unreadable: bool = False
    lasting: bool = False  # nothing can be taken out or written again to mend it


@dataclass(kw_only=True)
class Check:
    """What was checked, and what was found.

    Attributes:
        writer: who writes to the cache meanwhile: then its metadata and records were left alone
    """

    damages: list[Damage] = field(default_factory=list)
    shards: int = 0
    files: int = 0
    num_bytes: int = 0
    writer: str | None = None


def verify_cache(path: Path, *, progress: bool = False) -> list[Damage]:
    """What `check_cache` finds."""
    return check_cache(path, progress=progress).damages


def check_cache(path: Path, *, progress: bool = False) -> Check:
    """Read every file that the ledger lists and compare lengths and checksums.

    A single wrong byte in any of them is found. What has no checksum is held to what must be there: every
    zarr.json to the layout and the ledger, and each line of runs.jsonl and failed.jsonl to be a record.
    While a writer is at work these change, and the finished shards alone are checked.

    Raises:
        MissingError, CacheError: there is no cache, or its group metadata or ledger cannot be read.
    """
    writer = writer_of(path)
    layout = CacheLayout.from_attributes(read_attributes(path), path)
    entries, damages = _read_ledger(path)
    check = Check(damages=damages, shards=len(entries), writer=writer)
    sizes = {shard: [file["bytes"] for file in entry.files.values()] for shard, entry in entries.items()}
    check.files = sum(map(len, sizes.values()))
    check.num_bytes = sum(map(sum, sizes.values()))
    with tqdm(
        total=check.num_bytes, unit="B", unit_scale=True, desc="verify", disable=None if progress else True
    ) as bar:
        for entry in entries.values():
            damages += _check_shard(path, layout, entry)
            bar.update(sum(sizes[entry.shard]))
    damages += _check_other_files(path, layout, bool(entries))
    others = [*_check_metadata(path, layout, entries), *_check_records(path)]
    if others:  # a writer that came, or came and went, meanwhile changed them
        check.writer = writer or writer_of(path)
        if check.writer is None and len(_read_ledger(path)[0]) != len(entries):
            check.writer = "a process that has ended"
    if check.writer is None:
        damages += others
    return check


def repair_cache(path: Path, damages: Iterable[Damage]) -> list[int]:
    """Take the damaged shards out of the ledger and remove their files; their numbers.

    The next extraction finds their clips missing and fills the same shards again. What could not be read
    stays: it may be sound.

    Raises:
        CacheError: another process writes to the cache.
    """
    attributes = read_attributes(path) | {"complete": False}
    layout = CacheLayout.from_attributes(attributes, path)
    attributes |= layout.attributes()
    damages = [damage for damage in damages if not damage.unreadable]
    bad = sorted({damage.shard for damage in damages if damage.shard is not None})
    check_folders(path, layout)
    with writing(path):
        lock = WriterLock(path)
    try:
        with writing(path):
            entries = _read_ledger(path)[0]
            kept = {shard: entry for shard, entry in entries.items() if shard not in bad}
            # The ledger first: a crash in between leaves files that nobody counts.
            rewrite_ledger(path, kept.values())
            for shard in bad:
                for name in layout.shard_files(shard):
                    (path / name).unlink(missing_ok=True)
            counts = {shard: entry.clips for shard, entry in kept.items()}
            rows = shard_row_count(counts, layout.shard_rows)
            write_metadata(path, layout, attributes, rows, durable=True)
            for name in {damage.file for damage in damages} & set(RECORDS):
                lines = (line.record for line in read_lines(path / name) if RECORDS[name](line.record))
                replace_file(path / name, "".join(encode(line or {}) for line in lines).encode())
    finally:
        lock.release()
    return bad


def _read_ledger(path: Path) -> tuple[dict[int, Entry], list[Damage]]:
    """The entries that can be read, and the lines that cannot."""
    entries: dict[int, Entry] = {}
    damages: list[Damage] = []
    for name, line in ledger_lines(path):
        entry = parse(line)
        if entry is None:
            damage = Damage(shard=None, file=name, reason=f"line {line.number} cannot be read")
            if not line.torn and damage not in damages:  # torn by a crash: the next writer drops it
                damages.append(damage)
        elif entries.setdefault(entry.shard, entry) != entry:
            damages.append(Damage(shard=entry.shard, file=name, reason="is listed twice, differently"))
    return entries, damages


def _check_shard(path: Path, layout: CacheLayout, entry: Entry) -> Iterator[Damage]:
    expected = layout.shard_files(entry.shard) if entry.clips else []
    if sorted(expected) != sorted(entry.files):
        yield Damage(shard=entry.shard, file=LEDGER, reason="lists other files than the layout has")
        return
    if not expected:
        return
    for name in expected:
        found = _check_file(path, entry, name)
        if found is not None:
            yield found
            return  # one reason is enough to write the shard again
    # The checksums are right, so the ids are as written and can judge the ledger's count.
    ids = decode_ids(read_bytes(path / ids_file(entry.shard)))
    if ids is None or len(ids) != entry.clips or entry.clips > layout.shard_rows:
        yield Damage(shard=entry.shard, file=LEDGER, reason=f"{entry.clips} clips, but its files hold others")


def _check_file(path: Path, entry: Entry, name: str) -> Damage | None:
    record = entry.files[name]
    try:
        length, checksum = file_crc32c(path / name)
    except (FileNotFoundError, NotADirectoryError):
        return Damage(shard=entry.shard, file=name, reason="is missing")
    except OSError as error:
        return _unreadable(entry.shard, name, error)
    if length != record["bytes"]:
        why = f"has {length} bytes instead of {record['bytes']}"
    elif checksum != record["crc32c"]:
        why = f"has the checksum {checksum} instead of {record['crc32c']}"
    else:
        return None
    return Damage(shard=entry.shard, file=name, reason=why)


def _check_other_files(path: Path, layout: CacheLayout, has_shards: bool) -> Iterator[Damage]:
    """The files that carry their checksum themselves."""
    files: list[tuple[Path, Callable[[], object]]] = []
    if layout.scales_channels and has_shards:
        specs = [layout.channel_scale(layer) for layer in layout.layers]
        files += [(path / spec.only_file, partial(read_scale, path, spec)) for spec in specs]
    if (path / PLAN).is_dir():
        parts = [file for file in (path / PLAN).iterdir() if file.name.isdecimal()]
        files += [(file, partial(read_part, file)) for file in sorted(parts)]
    for file, read in files:
        try:
            read()
        except CacheError as error:
            why = str(error).removeprefix(f"{file} ").partition(";")[0]
            yield Damage(shard=None, file=str(file.relative_to(path)), reason=why, lasting=True)


def _check_metadata(path: Path, layout: CacheLayout, entries: dict[int, Entry]) -> Iterator[Damage]:
    counts = {shard: entry.clips for shard, entry in entries.items()}
    rows = shard_row_count(counts, layout.shard_rows)
    for node, wanted in documents(layout, {}, rows).items():
        name = f"{node}/zarr.json" if node else "zarr.json"
        try:
            found: Any = read_json(path / name)
        except OSError as error:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                yield _unreadable(None, name, error)
                continue
            found = None
        except ValueError:
            found = None
        if not node and isinstance(found, dict):  # the attributes have been read
            found = {**found, "attributes": wanted["attributes"]}
        if found != wanted:
            yield Damage(shard=None, file=name, reason="differs from what the layout and the ledger say")


def _check_records(path: Path) -> Iterator[Damage]:
    for name, sound in RECORDS.items():
        try:
            bad = [line.number for line in read_lines(path / name) if not (line.torn or sound(line.record))]
        except OSError as error:
            yield _unreadable(None, name, error)
            continue
        for number in bad:
            yield Damage(shard=None, file=name, reason=f"line {number} is not a record")
    with suppress(CacheError):  # runs.jsonl cannot be read: said above
        if (changed := own_manifest_problem(path)) is not None:
            yield Damage(shard=None, file=changed[0], reason=changed[1], unreadable=True)


def _unreadable(shard: int | None, name: str, error: OSError) -> Damage:
    return Damage(shard=shard, file=name, reason=f"cannot be read: {reason(error)}", unreadable=True)
