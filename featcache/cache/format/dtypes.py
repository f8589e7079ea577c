"""The number formats that tokens are stored in."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featcache.errors import InputError, unknown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class StoreDtype:
    """One storage format of tokens."""

    name: str
    zarr: str  # data type in the array's zarr.json
    torch_name: str  # of gathered tokens
    bits: int  # per value
    steps: int = 0  # quantized formats: the largest integer, reached by a token's largest magnitude

    @property
    def torch(self) -> "torch.dtype":
        """The data type of gathered tokens."""
        import torch

        dtype: torch.dtype = getattr(torch, self.torch_name)
        return dtype

    @property
    def scaled(self) -> bool:
        """Whether each token has a float32 scale beside it."""
        return self.steps > 0

    def packed(self, dim: int) -> int:
        """Elements of the Zarr array that hold one token of ``dim`` values."""
        item_bits = max(self.bits, 8)
        if dim * self.bits % item_bits:
            raise InputError(f"{self.name} packs two values a byte and needs an even width, not {dim}")
        return dim * self.bits // item_bits


STORE_DTYPES: dict[str, StoreDtype] = {
    dtype.name: dtype
    for dtype in (
        StoreDtype(name="float16", zarr="float16", torch_name="float16", bits=16),
        StoreDtype(name="float32", zarr="float32", torch_name="float32", bits=32),
        # Zarr has no bfloat16: its bits are kept in a uint16 array whose attributes say so.
        StoreDtype(name="bfloat16", zarr="uint16", torch_name="bfloat16", bits=16),
        StoreDtype(name="int8", zarr="int8", torch_name="int8", bits=8, steps=127),
        StoreDtype(name="int4", zarr="uint8", torch_name="uint8", bits=4, steps=7),
    )
}


def store_dtype(name: str) -> StoreDtype:
    """The storage format of this name.

    Raises:
        InputError: no such format.
    """
    if name not in STORE_DTYPES:
        raise unknown("storage dtype", name, list(STORE_DTYPES))
    return STORE_DTYPES[name]
