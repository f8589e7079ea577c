"""The order of writes that makes a shard finished: content, names, shapes, ledger."""

from pathlib import Path
from typing import Any

from featcache.cache.files import partial_path, sync_directory, write_partial
from featcache.cache.layout import CacheLayout
from featcache.cache.ledger import Entry, append_entry
from featcache.cache.metadata import write_metadata
from featcache.cache.shard import ShardBuffer


def commit_shard(
    path: Path,
    layout: CacheLayout,
    attributes: dict[str, Any],
    shard: int,
    buffer: ShardBuffer,
    rows: int,
) -> Entry:
    """Make the clips in ``buffer`` shard number ``shard``; durable on return.

    Until the last step the ledger does not know the shard, so a crash at any instant leaves files
    that nobody counts and that the next writer overwrites with the same bytes.

    Args:
        rows: of every array once this shard is there
    """
    files: dict[str, Any] = {}
    try:
        for name, pieces in buffer.files(shard):
            files[name] = write_partial(path / name, pieces)
    except BaseException:
        for name in files:
            partial_path(path / name).unlink(missing_ok=True)  # frees what filled the disk
        raise
    for name in files:
        partial_path(path / name).rename(path / name)
    for directory in sorted({(path / name).parent for name in files}):
        sync_directory(directory)
    # Not durable: shapes follow from the ledger and are written again on opening and closing.
    write_metadata(path, layout, attributes, rows, durable=False)
    entry = Entry(shard=shard, clips=len(buffer.ids), files=files)
    append_entry(path, entry)
    return entry
