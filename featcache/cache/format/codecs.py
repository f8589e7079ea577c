"""Compressors of a token's inner chunks, as Zarr v3 names them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numcodecs
import numpy as np

from featcache.errors import unknown

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One compressor: its entry in zarr.json and the numcodecs object that does the work."""

    name: str
    configuration: Callable[[int], dict[str, Any]]  # bytes of one element -> zarr.json configuration
    build: Callable[[int], Any]  # bytes of one element -> numcodecs codec


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Codec(
            name="zstd",
            configuration=lambda _: {"level": 3, "checksum": False},
            build=lambda _: numcodecs.Zstd(level=3),
        ),
        Codec(
            name="blosc",
            configuration=lambda item_bytes: {
                "typesize": item_bytes,
                "cname": "zstd",
                "clevel": 5,
                "shuffle": "bitshuffle",
                "blocksize": 0,
            },
            build=lambda item_bytes: numcodecs.Blosc(
                cname="zstd", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE, typesize=item_bytes
            ),
        ),
    )
}


def codec_named(name: str | None) -> Codec | None:
    """The compressor of this name; None stands for none.

    Raises:
        InputError: no such codec.
    """
    if name is None:
        return None
    if name not in CODECS:
        raise unknown("codec", name, list(CODECS))
    return CODECS[name]
