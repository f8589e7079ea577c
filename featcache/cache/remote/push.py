"""A local cache to another place: each shard's files, then its entry in the ledger."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from featcache.cache.format.durable import file_crc32c
from featcache.cache.format.fingerprint import check_same_tokens
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import Entry, entry_file, read_ledger
from featcache.cache.format.metadata import documents, read_attributes
from featcache.cache.remote.hub import is_hub, push_to_hub
from featcache.cache.remote.store import FarStore
from featcache.cache.remote.transferred import Transferred
from featcache.cache.write.plan import PLAN
from featcache.cache.write.recovery import shard_row_count
from featcache.errors import CacheError, MismatchError
from featcache.files import read_bytes
from featcache.jsonl import encode
from featcache.records import FAILED, OWN, RUNS

WORKERS = 8


def push(
    cache: str | Path, address: str | Path, *, workers: int = WORKERS, progress: bool = False
) -> Transferred:
    """Copy the finished shards that are not there yet. The same call goes on after a stop, or adds new ones.

    Each file is read with its checksum before it counts as sound; a shard's entry in the ledger is stored
    after all its files, so whoever reads there meanwhile sees whole shards only.

    Args:
        address: ``s3://…``, ``gs://…``, ``az://…``, ``hf-hub:OWNER/NAME``, or another that fsspec knows
        workers: shards at a time

    Raises:
        MissingError: there is no local cache.
        MismatchError: the cache at the address has other tokens, or other clips in its shards.
        CacheError: a file here is damaged, or the place cannot be written to.
    """
    path = Path(cache)
    attributes = read_attributes(path)
    layout = CacheLayout.from_attributes(attributes, path)
    own = {entry.shard: entry for entry in read_ledger(path)}
    if is_hub(address):
        for entry in own.values():
            check_files(path, layout, entry)
        return push_to_hub(path, str(address), layout, own.values())
    store = FarStore(address)
    theirs = _there(store, path, layout, own)
    missing = [entry for shard, entry in own.items() if shard not in theirs]
    _push_shared(store, path, layout)
    if missing:  # so that a push that is stopped is a cache
        _push_metadata(store, layout, {**attributes, "complete": False}, theirs.values())
    done = Transferred(place=store.address, present=len(own) - len(missing))
    total = sum(file["bytes"] for entry in missing for file in entry.files.values())
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="push", disable=None if progress else True
    ) as bar, ThreadPoolExecutor(workers, "push") as pool:  # fmt: skip
        waiting = [pool.submit(_push_shard, store, path, layout, entry) for entry in missing]
        try:
            for future in as_completed(waiting):
                size = future.result()
                bar.update(size)
                done.num_bytes += size
                done.shards += 1
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    entries = {**theirs, **own}
    done.clips = sum(entry.clips for entry in entries.values())
    for name in (*OWN, RUNS, FAILED):
        if (path / name).exists():
            store.put(path / name, name)
    _push_metadata(store, layout, attributes, entries.values())
    return done


def _there(store: FarStore, path: Path, layout: CacheLayout, own: dict[int, Entry]) -> dict[int, Entry]:
    """The shards that are at the place; refuses one that is another cache's."""
    with TemporaryDirectory(prefix="featcache-") as name:
        head = Path(name)
        if not store.head(head):
            return {}
        there = CacheLayout.from_attributes(read_attributes(head), store.address)
        check_same_tokens(Path(store.address), there, layout, also=("codec", "shard_clips"))
        theirs = {entry.shard: entry for entry in read_ledger(head)}
        differ = [shard for shard in own if shard in theirs and own[shard].files != theirs[shard].files]
        parts = [
            file.name
            for file in (head / PLAN).iterdir()
            if (path / PLAN / file.name).exists() and read_bytes(path / PLAN / file.name) != file.read_bytes()
        ]
    if differ or parts:
        what = f"shard {differ[0]}" if differ else f"part {parts[0]} of the plan"
        raise MismatchError(
            f"{store.address} and {path} were filled apart: {what} differs; push to another address, or pull "
            "first and add what is missing to what came"
        )
    return theirs


def _push_shared(store: FarStore, path: Path, layout: CacheLayout) -> None:
    """What shards stand on: which clips make them, and the scales of channels."""
    scales = [layout.channel_scale(layer).only_file for layer in layout.layers]
    parts = [f"{PLAN}/{file.name}" for file in sorted((path / PLAN).glob("*")) if file.name.isdecimal()]
    for name in (*scales, *parts):
        if (path / name).exists():
            store.put(path / name, name)


def _push_shard(store: FarStore, path: Path, layout: CacheLayout, entry: Entry) -> int:
    check_files(path, layout, entry)
    for name in entry.files:
        store.put(path / name, name)
    store.write(entry_file(entry.shard), encode(entry.record()).encode())
    return sum(file["bytes"] for file in entry.files.values())


def check_files(path: Path, layout: CacheLayout, entry: Entry) -> None:
    """See that the files of a shard are its own, and as they were written.

    Raises:
        CacheError: one is not.
    """
    foreign = set(entry.files) - set(layout.shard_files(entry.shard))
    for name, file in entry.files.items():
        try:
            sound = not foreign and file_crc32c(path / name) == (file["bytes"], file["crc32c"])
        except OSError:
            sound = False
        if not sound:
            raise CacheError(
                f"{path / name} is not as it was written; see 'featcache cache verify {path} --repair'"
            )


def _push_metadata(
    store: FarStore, layout: CacheLayout, attributes: dict[str, Any], entries: Iterable[Entry]
) -> None:
    """Every zarr.json, the group's last: it says what is there."""
    rows = shard_row_count({entry.shard: entry.clips for entry in entries}, layout.shard_rows)
    for name, document in documents(layout, attributes | layout.attributes(), rows).items():
        target = f"{name}/zarr.json" if name else "zarr.json"
        store.write(target, (json.dumps(document, indent=1) + "\n").encode())
