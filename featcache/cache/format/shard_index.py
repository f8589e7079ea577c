"""The bytes of a shard: clip ids, and the index at the end of a token file."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from crc32c import crc32c

from featcache.errors import CacheError
from featcache.files import parse_json

REPAIR = "'featcache cache verify --repair' drops the shard, and the next extract writes it again"
ABSENT = np.uint64(2**64 - 1)  # offset and length of an inner chunk that is not stored


def ids_file(shard: int) -> str:
    """Path below the cache of the clip ids of a shard."""
    return f"ids/{shard}.json"


def encode_ids(ids: Sequence[str]) -> bytes:
    """The content of that file."""
    return (json.dumps(ids, ensure_ascii=False) + "\n").encode()


def decode_ids(content: bytes) -> list[str] | None:
    """The ids in that file; None where it holds something else."""
    try:
        ids = parse_json(content)
    except ValueError:
        return None
    return ids if isinstance(ids, list) and all(isinstance(name, str) for name in ids) else None


def encode_index(lengths: list[int], shard_rows: int) -> bytes:
    """(offset, length) of every inner chunk as little-endian uint64, then the CRC-32C of that."""
    index = np.full((shard_rows, 2), ABSENT, dtype="<u8")
    index[: len(lengths), 1] = lengths
    index[: len(lengths), 0] = np.cumsum([0, *lengths[:-1]])[: len(lengths)]
    body = index.tobytes()
    return body + crc32c(body).to_bytes(4, "little")


def index_bytes(shard_rows: int) -> int:
    """Length of the index at the end of a shard file."""
    return 16 * shard_rows + 4


def parse_index(raw: bytes, file_bytes: int, name: str) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """(S, 2) offsets and lengths from the last bytes of a shard file.

    Raises:
        CacheError: the checksum is wrong or a chunk lies outside the file.
    """
    body, checksum = raw[:-4], int.from_bytes(raw[-4:], "little")
    if crc32c(body) != checksum:
        raise _damaged(name, "the checksum of its index is wrong")
    index = np.frombuffer(body, dtype="<u8").reshape(-1, 2)
    stored = index[index[:, 0] != ABSENT]
    room = file_bytes - len(raw)
    # Each by itself first: their sum may not fit into 64 bits.
    if stored.size and (stored.max() > room or stored.sum(axis=1).max() > room):
        raise _damaged(name, "its index points beyond its end")
    return index


def _damaged(name: str, why: str) -> CacheError:
    return CacheError(f"{name} is damaged: {why}; {REPAIR}")
