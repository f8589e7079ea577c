"""The Zarr v3 metadata of a cache: what makes it an ordinary group to any Zarr client."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from featcache.cache.format.codecs import codec_named
from featcache.cache.format.durable import replace_file
from featcache.cache.format.layout import FORMAT, ArraySpec, CacheLayout
from featcache.errors import CacheError, MissingError
from featcache.files import read_bytes, read_json, reason

READABLE = (1, FORMAT)


class ForeignError(CacheError):
    """A Zarr group or array that is no token cache."""


_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CHECKSUM = {"name": "crc32c"}


def read_attributes(path: Path) -> dict[str, Any]:
    """The ``featcache`` attributes of the group at ``path``.

    Raises:
        MissingError: there is no token cache.
        CacheError: there is something else, or a cache of a later format.
    """
    try:
        document = read_json(path / "zarr.json")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"no token cache at {path}; create one with 'featcache extract'") from None
    except OSError as error:
        raise CacheError(f"{path / 'zarr.json'} cannot be read: {reason(error)}") from error
    except ValueError:
        raise CacheError(
            f"{path / 'zarr.json'} is damaged: it is not JSON; copy the cache again, or remove it"
        ) from None
    try:
        attributes: dict[str, Any] = dict(document["attributes"]["featcache"])
    except (KeyError, TypeError, ValueError):
        raise ForeignError(
            f"{path} is not a token cache: its zarr.json has no featcache attributes"
        ) from None
    if attributes.get("format") not in READABLE:
        raise CacheError(
            f"{path} has cache format {attributes.get('format')}, this featcache reads 1 and {FORMAT}; "
            "install the version that wrote it"
        )
    return attributes


def write_metadata(
    path: Path, layout: CacheLayout, attributes: dict[str, Any], rows: int, *, durable: bool
) -> None:
    """Write every zarr.json for arrays of ``rows`` rows.

    The group comes last and repeats the arrays (consolidated metadata), so that listing the group
    does not stumble over the ledger and the ids, which Zarr does not know. It alone is made durable: the
    others say the same again.
    """
    for name, document in documents(layout, attributes, rows).items():
        (path / name).mkdir(parents=True, exist_ok=True)
        _write_document(path / name, document, durable and not name)


def documents(layout: CacheLayout, attributes: dict[str, Any], rows: int) -> dict[str, dict[str, Any]]:
    """Every zarr.json by its folder below the cache; that of the cache itself, under "", comes last."""
    arrays = {spec.name: array_document(spec, rows, layout.shard_rows) for spec in layout.all_arrays()}
    groups = {name.split("/")[0]: _group_document({}) for name in arrays if "/" in name}
    nodes = {**groups, **arrays}
    whole = _group_document({"featcache": attributes})
    whole["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": nodes}
    return {**nodes, "": whole}


def array_document(spec: ArraySpec, rows: int, shard_rows: int) -> dict[str, Any]:
    """The zarr.json of one array."""
    length = {"clip": [rows], "shard": [-(-rows // shard_rows)], "cache": []}[spec.per]
    chunk = {"clip": [shard_rows], "shard": [1], "cache": []}[spec.per]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*length, *spec.row_shape],
        "data_type": spec.zarr,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [*chunk, *spec.row_shape]},
        },
        # With dots a shard is one file in its array's directory: a third of the inodes and
        # of the directory syncs that "c/<shard>/0/0" takes.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0.0 if spec.zarr.startswith("float") else 0,
        "codecs": _codecs(spec),
        "dimension_names": list(spec.axes),
        "attributes": {},
    }


def _codecs(spec: ArraySpec) -> list[dict[str, Any]]:
    if spec.sharded:
        return [_sharding(spec)]
    # No ledger lists the one row of a cache: its checksum is in the file.
    return [_byte_codec(spec), *([_CHECKSUM] if spec.per == "cache" else [])]


def _sharding(spec: ArraySpec) -> dict[str, Any]:
    compressor = codec_named(spec.codec)
    compressors = (
        [{"name": compressor.name, "configuration": compressor.configuration(spec.item_bytes)}]
        if compressor
        else []
    )
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, *spec.row_shape],
            "codecs": [_byte_codec(spec), *compressors],
            "index_codecs": [_BYTES, _CHECKSUM],
            "index_location": "end",
        },
    }


def _byte_codec(spec: ArraySpec) -> dict[str, Any]:
    return _BYTES if spec.item_bytes > 1 else {"name": "bytes"}


def _group_document(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _write_document(node: Path, document: dict[str, Any], durable: bool) -> None:
    content = (json.dumps(document, indent=1) + "\n").encode()
    with suppress(OSError):
        if not durable and read_bytes(node / "zarr.json") == content:
            return
    replace_file(node / "zarr.json", content, durable)
