"""A cache from another place to a local folder, whole, or the shards and layers that are asked for."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from tqdm import tqdm

from featcache.cache.format.durable import (
    file_crc32c,
    partial_path,
    replace_file,
    sync_directory,
    writer_name,
    writing,
)
from featcache.cache.format.fingerprint import check_same_tokens
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER, Entry, entry_file, read_ledger
from featcache.cache.format.metadata import read_attributes, write_metadata
from featcache.cache.format.shard_index import decode_ids, ids_file
from featcache.cache.remote.push import WORKERS
from featcache.cache.remote.store import FarStore
from featcache.cache.remote.transferred import Transferred
from featcache.cache.write.folders import check_folders, folders
from featcache.cache.write.lock import WriterLock
from featcache.cache.write.plan import PLAN
from featcache.cache.write.recovery import check_target, shard_row_count
from featcache.errors import CacheError, InputError, MissingError, unknown
from featcache.files import read_bytes
from featcache.jsonl import encode
from featcache.records import FAILED, OWN, RUNS

Layers = Sequence[int] | Literal["last"] | None


def pull(
    address: str | Path,
    cache: str | Path,
    *,
    ids: Iterable[str] | None = None,
    layers: Layers = None,
    workers: int = WORKERS,
    progress: bool = False,
) -> Transferred:
    """Copy the finished shards that are not here yet; the same call goes on after a stop, or adds new ones.

    Every file is compared with the checksum that the ledger has of it before it gets its name.

    Args:
        ids: of the clips that are wanted: the shards that hold any of them; all unless given
        layers: that are wanted, or "last"; all unless given
        workers: files at a time

    Raises:
        MissingError: there is no cache at the address.
        MismatchError: the local cache has other tokens.
        InputError: a layer that it lacks, or the local folder is something else.
        CacheError: a file does not arrive as it was written, or the disk is full.
    """
    path, store = Path(cache), FarStore(address)
    check_target(path)
    with TemporaryDirectory(prefix="featcache-") as name:
        head = Path(name)
        if not store.head(head):
            raise MissingError(f"no token cache at {store.address}")
        attributes = read_attributes(head)
        whole = CacheLayout.from_attributes(attributes, store.address)
        layout = _with_layers(whole, layers)
        entries = {entry.shard: entry for entry in read_ledger(head)}
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            lock = WriterLock(path)
        try:
            return _fill(path, store, head, layout, attributes, entries, ids, workers, progress)
        finally:
            lock.release()


def _fill(
    path: Path,
    store: FarStore,
    head: Path,
    layout: CacheLayout,
    attributes: dict[str, Any],
    entries: Mapping[int, Entry],
    ids: Iterable[str] | None,
    workers: int,
    progress: bool,
) -> Transferred:
    here = _here(path, store, layout)
    with ThreadPoolExecutor(workers, "pull") as pool:
        wanted = set(entries) if ids is None else _holding(store, list(entries), set(ids), pool)
        missing = [_kept(layout, entries[shard]) for shard in sorted(wanted - here.keys())]
        done = Transferred(place=str(path), present=len(wanted & here.keys()))
        total = sum(file["bytes"] for entry in missing for file in entry.files.values())
        with writing(path):
            _make_folders(path, layout)
            _copy_shared(path, store, head, layout)
            _write_metadata(
                path, layout, attributes, here, complete=False
            )  # a pull that is cut off is a cache
        with tqdm(
            total=total, unit="B", unit_scale=True, desc="pull", disable=None if progress else True
        ) as bar:
            try:
                for entry in missing:
                    files = [
                        pool.submit(_pull_file, store, path, name, own) for name, own in entry.files.items()
                    ]
                    for future in as_completed(files):
                        size = future.result()
                        bar.update(size)
                        done.num_bytes += size
                    _finish(path, entry)
                    here[entry.shard] = entry
                    done.shards += 1
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    done.clips = sum(entry.clips for entry in here.values())
    done.complete = bool(attributes.get("complete", True)) and here.keys() == entries.keys()
    with writing(path):
        _copy_records(path, head)
        _write_metadata(path, layout, attributes, here, complete=done.complete)
    return done


def _write_metadata(
    path: Path,
    layout: CacheLayout,
    attributes: Mapping[str, Any],
    entries: Mapping[int, Entry],
    *,
    complete: bool,
) -> None:
    own = {**attributes, **layout.attributes(), "complete": complete}
    rows = shard_row_count({shard: entry.clips for shard, entry in entries.items()}, layout.shard_rows)
    write_metadata(path, layout, own, rows, durable=True)


def prepare(path: Path, store: FarStore, head: Path, layout: CacheLayout) -> None:
    """A local cache of the same layout, plan and scales as one elsewhere, without its shards.

    Args:
        head: what says what the other holds, see `FarStore.head`
    """
    check_target(path)
    with writing(path):
        _make_folders(path, layout)
        _copy_shared(path, store, head, layout)
        if not (path / "zarr.json").exists():
            _write_metadata(path, layout, read_attributes(head), {}, complete=False)


def _with_layers(layout: CacheLayout, layers: Layers) -> CacheLayout:
    if layers == "last":
        layers = layout.layers[-1:]
    for layer in layers or ():
        if layer not in layout.layers:
            raise unknown("layer", str(layer), [str(known) for known in layout.layers])
    # Without its number a shard would be as large as that of fewer layers.
    kept = tuple(sorted(layers)) if layers else layout.layers
    return replace(layout, layers=kept, shard_clips=layout.shard_rows)


def _here(path: Path, store: FarStore, layout: CacheLayout) -> dict[int, Entry]:
    """The shards that have come before."""
    if not (path / "zarr.json").exists():
        return {entry.shard: entry for entry in read_ledger(path)} if (path / LEDGER).exists() else {}
    local = CacheLayout.from_attributes(read_attributes(path), path)
    check_same_tokens(path, local, layout, also=("codec", "shard_clips"))
    check_folders(path, layout)
    return {entry.shard: entry for entry in read_ledger(path)}


def _holding(store: FarStore, shards: Sequence[int], ids: set[str], pool: ThreadPoolExecutor) -> set[int]:
    """The shards with a clip of these."""
    contents = pool.map(lambda shard: store.read(ids_file(shard)), shards)
    found, seen = set(), set[str]()
    for shard, content in zip(shards, contents, strict=True):
        own = ids.intersection(decode_ids(content or b"") or ())
        seen |= own
        if own:
            found.add(shard)
    if not seen:
        raise InputError(f"none of {len(ids)} clips is in {store.address}; is it the manifest of this cache?")
    return found


def _kept(layout: CacheLayout, entry: Entry) -> Entry:
    """The entry with the files of the wanted layers: no other name is ever written."""
    files = {name: entry.files[name] for name in layout.shard_files(entry.shard) if name in entry.files}
    return replace(entry, files=files)


def _make_folders(path: Path, layout: CacheLayout) -> None:
    for folder in (LEDGER, PLAN, "ids", *folders(layout)):
        (path / folder).mkdir(parents=True, exist_ok=True)


def _copy_shared(path: Path, store: FarStore, head: Path, layout: CacheLayout) -> None:
    for file in (head / PLAN).iterdir():
        if file.name.isdecimal():
            replace_file(path / PLAN / file.name, file.read_bytes())
    for layer in layout.layers if layout.scales_channels else ():
        name = layout.channel_scale(layer).only_file
        if (content := store.read(name)) is not None:  # it carries its checksum
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(path / name, content)


def _copy_records(path: Path, head: Path) -> None:
    for name in (*OWN, RUNS, FAILED):
        if (head / name).exists() and not (path / name).exists():
            replace_file(path / name, read_bytes(head / name))


def _pull_file(store: FarStore, path: Path, name: str, wanted: Mapping[str, Any]) -> int:
    """One file of a shard, unless it is here; its size."""
    size, target = int(wanted["bytes"]), path / name
    sound = (size, wanted["crc32c"])
    if target.is_file() and not target.is_symlink() and file_crc32c(target) == sound:
        return size
    partial = partial_path(target, writer_name())
    try:
        with writing(path):
            store.get(name, partial)
            if file_crc32c(partial) != sound:
                store.get(name, partial)  # cut off without an error, perhaps
            if file_crc32c(partial) != sound:
                raise CacheError(f"{store.address}/{name} is not as it was written: its checksum is another")
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return size


def _finish(path: Path, entry: Entry) -> None:
    with writing(path):
        for folder in sorted({(path / name).parent for name in entry.files}):
            sync_directory(folder)
        replace_file(path / entry_file(entry.shard), encode(entry.record()).encode())
