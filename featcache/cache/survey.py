"""What caches are here and what one holds, read from metadata and ledger alone."""

from pathlib import Path
from typing import Any

from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import read_ledger
from featcache.cache.format.metadata import read_attributes
from featcache.cache.write.recovery import shard_row_count
from featcache.errors import FeatcacheError, MissingError
from featcache.records import failed_clips


def survey(directory: Path) -> list[dict[str, Any]]:
    """One record per token cache in ``directory`` (or for itself), by name.

    Raises:
        MissingError: there is no such directory.
    """
    if not directory.is_dir():
        raise MissingError(f"no directory {directory}")
    found = []
    for path in [directory, *sorted(directory.iterdir())]:
        try:
            record = describe(path)
        except FeatcacheError:  # something else lives here
            continue
        fields = ("clips", "clips_expected", "bytes", "complete")
        found.append(
            {
                "name": path.name or str(path),
                "encoder": str(record["fingerprint"].get("encoder", "?")),
                "dtype": record["store"]["dtype"],
                **{field: record[field] for field in fields},
            }
        )
    return found


def describe(path: Path) -> dict[str, Any]:
    """Everything that the metadata, the ledger and failed.jsonl say of a cache."""
    attributes = read_attributes(path)
    layout = CacheLayout.from_attributes(attributes, path)
    counts, size = {}, 0
    for entry in read_ledger(path):
        counts[entry.shard] = entry.clips
        size += sum(file["bytes"] for file in entry.files.values())
    rows = shard_row_count(counts, layout.shard_rows)
    return {
        **attributes,
        "complete": attributes.get("complete", False),
        "path": str(path),
        "clips": sum(counts.values()),
        "clips_expected": attributes.get("clips_expected"),
        "shards": len(counts),
        "shard_clips": layout.shard_rows,
        "bytes": size,
        "parent": attributes.get("parent"),
        "arrays": {
            spec.name: {"dtype": spec.zarr, "shape": [rows, *spec.row_shape]} for spec in layout.arrays()
        },
        "failed": failed_clips(path),
    }


def identity(path: Path) -> dict[str, Any]:
    """The fields by which two caches are the same kind or not."""
    return CacheLayout.from_attributes(read_attributes(path), path).attributes()
