"""From floats to the integers of int8 and int4 caches, and back."""

import numpy as np
import torch
from torch import Tensor

from featcache.cache.format.dtypes import StoreDtype, store_dtype
from featcache.errors import InputError


def quantize(tokens: Tensor, dtype: StoreDtype, channels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Integers and one scale per token: ``integer * scale * channels`` is close to the token's values.

    In NumPy, which works in the thread of the caller: a clip is too little to share.

    Args:
        channels: scales of the channels, positive; ones unless given

    Shape:
        - tokens: (n, D) floats on the CPU
        - channels: (D,) float32
        - output: (n, D) int8, or (n, D / 2) uint8 for int4; and (n,) float32

    >>> integers, scale = quantize(torch.tensor([[1.27, -0.5]]), store_dtype("int8"))
    >>> integers.tolist(), round(scale.item(), 4)
    ([[127, -50]], 0.01)
    """
    values = tokens.float().numpy()
    out = np.empty_like(values)
    if channels is not None:
        values = np.divide(values, channels.numpy(), out=out)
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))  # NaN where there is one
    scale = np.abs(largest) / np.float32(dtype.steps)  # (n,)
    # A token of zeros keeps scale 0: its integers are 0 whatever it is divided by.
    divisor = np.maximum(scale, np.finfo(np.float32).tiny)[:, None]
    with np.errstate(invalid="ignore"):  # NaN and infinities: their scale tells of them
        np.rint(np.divide(values, divisor, out=out), out=out)  # never beyond dtype.steps
        integers = torch.from_numpy(out.astype(np.int8))  # (n, D)
    return (_pack_int4(integers) if dtype.bits == 4 else integers), torch.from_numpy(scale)


def dequantize(
    tokens: Tensor, scale: Tensor | None, dtype_name: str, channels: Tensor | None = None
) -> Tensor:
    """Stored tokens as floats, on whatever device they are.

    float16, bfloat16 and float32 tokens come back as they are; int8 and int4 as float32.

    Shape:
        - tokens: (..., N, D) as gathered; (..., N, D / 2) for int4
        - scale: (..., N) or None
        - channels: (D,) or None, of `TokenCache.channel_scale`
        - output: (..., N, D)
    """
    dtype = store_dtype(dtype_name)
    if not dtype.scaled:
        return tokens
    if scale is None:
        raise InputError(f"{dtype_name} tokens need their scales; take them from TokenCache.scales(rows)")
    integers = _unpack_int4(tokens) if dtype.bits == 4 else tokens
    floats = integers.float() * scale[..., None]
    return floats if channels is None else floats * channels


def round_trip(tokens: Tensor, dtype_name: str, channels: Tensor | None = None) -> Tensor:
    """Tokens (n, D) as they come back from a cache of that dtype, float32."""
    dtype = store_dtype(dtype_name)
    if not dtype.scaled:
        return tokens.to(dtype.torch).float()
    return dequantize(*quantize(tokens.float(), dtype, channels), dtype_name, channels)


def _pack_int4(integers: Tensor) -> Tensor:
    """(n, D) int8 in -7..7 to (n, D / 2) uint8: two's complement nibbles, the even value low."""
    nibbles = (integers & 0x0F).view(torch.uint8)
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)


def _unpack_int4(packed: Tensor) -> Tensor:
    """(..., D / 2) uint8 to (..., D) int8 in -7..7."""
    high = packed.view(torch.int8) >> 4  # arithmetic: keeps the sign
    low = (packed << 4).view(torch.int8) >> 4
    return torch.stack((low, high), dim=-1).flatten(-2)
