"""Small files of a shard, read whole: their lengths and checksums are compared with the ledger's."""

import os
from pathlib import Path

import numpy as np
from crc32c import crc32c

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.durable import file_crc32c
from featcache.cache.format.layout import ArraySpec
from featcache.cache.format.ledger import Finished
from featcache.cache.format.shard_index import REPAIR
from featcache.errors import CacheError
from featcache.files import open_regular, reason


def open_listed(cache: Path, name: str, finished: Finished) -> tuple[int, int]:
    """A descriptor of a file that the ledger lists, and its length, which is the ledger's.

    Raises:
        CacheError: it is missing, has another length, or cannot be read.
    """
    wanted, _ = finished.file(name)
    try:
        descriptor = open_regular(cache / name)
    except (FileNotFoundError, NotADirectoryError):
        raise CacheError(f"{cache / name} is missing although the ledger lists it; {REPAIR}") from None
    except OSError as error:
        raise unreadable(cache / name, error) from error
    length = os.fstat(descriptor).st_size
    if length != wanted:
        os.close(descriptor)
        raise CacheError(f"{cache / name} is damaged: it has {length} bytes instead of {wanted}; {REPAIR}")
    return descriptor, length


def read_listed(cache: Path, name: str, finished: Finished) -> Bytes:
    """The bytes of a file that the ledger lists, as they were written.

    Raises:
        CacheError: as `open_listed`, or the checksum is another.
    """
    descriptor, length = open_listed(cache, name, finished)
    data: Bytes = np.empty(length, dtype=np.uint8)
    try:
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            done = 0
            while done < length and (count := file.readinto(data[done:].data)):
                done += count
    except OSError as error:
        raise unreadable(cache / name, error) from error
    if crc32c(data.data) != finished.file(name)[1]:
        raise CacheError(f"{cache / name} is damaged: its checksum is not the ledger's; {REPAIR}")
    return data


def compare_listed(cache: Path, name: str, finished: Finished) -> None:
    """Compare a file of any size with its checksum, a few MB in memory at a time.

    Raises:
        CacheError: as `read_listed`.
    """
    os.close(open_listed(cache, name, finished)[0])
    try:
        _, checksum = file_crc32c(cache / name)
    except OSError as error:
        raise unreadable(cache / name, error) from error
    if int(checksum, 16) != finished.file(name)[1]:
        raise CacheError(f"{cache / name} is damaged: its checksum is not the ledger's; {REPAIR}")


def check_rows(path: object, length: int, spec: ArraySpec, shard_rows: int) -> None:
    """A plain chunk is always whole: one of another length was written under another layout.

    Raises:
        CacheError: it is.
    """
    if length != shard_rows * spec.row_bytes:
        raise CacheError(
            f"{path} has {length} bytes, and {shard_rows} clips of {spec.row_bytes} bytes have others: the "
            "attributes in zarr.json are damaged; copy the cache again, or remove it"
        )


def unreadable(path: object, error: OSError) -> CacheError:
    """The error for a file that may be sound but cannot be read now."""
    return CacheError(f"{path} cannot be read ({reason(error)}); see to the disk or its rights and try again")
