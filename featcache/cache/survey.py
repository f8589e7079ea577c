"""What caches are here and what one holds, read from metadata and ledger alone."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from featcache.cache.format.channels import merge, outliers
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER, OLD_LEDGER, Finished, read_ledger
from featcache.cache.format.metadata import ForeignError, documents, read_attributes
from featcache.cache.read.columns import read_statistics
from featcache.cache.write.recovery import shard_row_count
from featcache.errors import FeatcacheError, InputError, MissingError
from featcache.files import reason
from featcache.records import failed_clips


def survey(directory: Path) -> list[dict[str, Any]]:
    """One record per token cache in ``directory`` (or for itself), by name.

    Of a cache that cannot be read, ``problem`` says why, and the other fields are missing.

    Raises:
        MissingError: there is no such directory.
        InputError: it cannot be listed.
    """
    if not directory.is_dir():
        raise MissingError(f"no directory {directory}")
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise InputError(f"{directory} cannot be listed: {reason(error)}") from error
    found: list[dict[str, Any]] = []
    for path in [directory, *entries]:
        try:
            record = describe(path)
        except FeatcacheError as error:
            if _meant_as_cache(path, error):
                found.append({"name": path.name or str(path), "problem": str(error)})
            continue
        fields = ("clips", "clips_expected", "bytes", "complete")
        found.append(
            {
                "name": path.name or str(path),
                "encoder": str(record["fingerprint"].get("encoder", "?")),
                "dtype": record["store"]["dtype"],
                **{field: record[field] for field in fields},
                "problem": None,
            }
        )
    return found


def _meant_as_cache(path: Path, error: FeatcacheError) -> bool:
    """Whether what cannot be read is a cache, and not something else that lives here."""
    if isinstance(error, MissingError):
        return any(os.path.lexists(path / name) for name in (LEDGER, OLD_LEDGER))
    return not isinstance(error, ForeignError)


def describe(path: Path) -> dict[str, Any]:
    """Everything that the metadata, the ledger and failed.jsonl say of a cache."""
    attributes = read_attributes(path)
    layout = CacheLayout.from_attributes(attributes, path)
    counts, size = {}, 0
    for entry in read_ledger(path):
        counts[entry.shard] = entry.clips
        size += sum(file["bytes"] for file in entry.files.values())
    rows = shard_row_count(counts, layout.shard_rows)
    expected, parent = attributes.get("clips_expected"), attributes.get("parent")
    return {
        **attributes,
        "complete": attributes.get("complete") is True,
        "path": str(path),
        "clips": sum(counts.values()),
        "clips_expected": expected if type(expected) is int and expected > 0 else None,
        "shards": len(counts),
        "shard_clips": layout.shard_rows,
        "bytes": size,
        "parent": parent if isinstance(parent, dict) else None,
        "arrays": {
            name: {"dtype": array["data_type"], "shape": array["shape"]}
            for name, array in documents(layout, {}, rows).items()
            if array["node_type"] == "array"
        },
        "failed": failed_clips(path),
    }


def describe_channels(path: Path) -> dict[str, dict[str, Any]]:
    """By layer, the channels that are much larger than others, largest first; empty for format 1.

    Each has its number, mean, sd and largest magnitude; ``median`` is the median channel's largest magnitude.
    """
    layout = CacheLayout.from_attributes(read_attributes(path), path)
    finished = Finished(path, layout.shard_rows)
    if not layout.channels or not sum(finished.counts.values()):
        return {}
    found = {}
    for layer in layout.layers:
        table = merge(read_statistics(path, layout.statistics(layer), finished), layout.dim)
        loud = sorted(outliers(table[3]).tolist(), key=lambda channel: -table[3][channel])
        names = ("mean", "sd", "largest")
        found[str(layer)] = {
            "median": float(np.median(table[3])),
            "outliers": [
                {"channel": channel, **dict(zip(names, table[1:, channel].tolist(), strict=True))}
                for channel in loud
            ],
        }
    return found


def identity(path: Path) -> dict[str, Any]:
    """The fields by which two caches are the same kind or not."""
    return CacheLayout.from_attributes(read_attributes(path), path).attributes()
