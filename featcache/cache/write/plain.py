"""One layer of one clip in the form that is stored, by NumPy and torch, in the thread of the caller.

A clip is too little work to share: beside an encoder and decoders that keep all cores busy, threads that wait
for each other made storing it 20 times slower. ``native`` gives the same bits in one pass.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcache.cache.format.dtypes import StoreDtype
from featcache.cache.format.quantize import quantize

Array = np.ndarray[Any, Any]

SUMMED = 512  # rows of a float32 sum: a sum of block sums rounds less off than one long sum
SOME = 8  # the variance is that of every eighth token: all would cost a third of storing the clip
GRAIN = 32_768  # elements from which on torch shares an operation between threads (at::internal::GRAIN_SIZE)
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F80_0000}


class StoredLayer(NamedTuple):
    """Where one layer of one clip goes.

    Attributes:
        row: (N, D) in the storage dtype; (N, D / 2) for int4
        scale: (N,) float32, of quantized tokens
        mean: (D,) float32 of the valid tokens
        variance: (D,) float32 of every eighth of them; None where statistics are not kept
        largest: (D,) float32, their largest magnitude
    """

    row: Tensor
    scale: Tensor | None
    mean: Tensor
    variance: Array | None
    largest: Array | None


def store(
    out: StoredLayer, tokens: Tensor, valid: int, dtype: StoreDtype, channels: Tensor | None, given: bool
) -> bool:
    """Fill ``out``, but for the rows beyond ``tokens``; whether all that is stored is finite.

    Args:
        tokens: (n, D) floats on the CPU
        channels: (D,) scales of the channels, of quantized tokens
        given: whether the mean is there already
    """
    n = len(tokens)
    if out.scale is not None:
        integers, out.scale[:n] = quantize(tokens.float(), dtype, channels)
        copy_alone(out.row[:n], integers)
        finite = bool(out.scale[:n].isfinite().all())
    else:
        copy_alone(out.row[:n], tokens)
        finite = _is_finite(out.row[:n])  # infinite where a value is beyond the range
    if not given:
        out.mean.copy_(mean_token(tokens[:valid]))
    note_spread(out, tokens[:valid])
    return finite


def mean_token(tokens: Tensor) -> Tensor:
    """(n, D) to (D,) float32, in the thread of the caller; of no tokens it is zero."""
    sums = [_widened(block).sum(axis=0) for block in torch.split(tokens, SUMMED)]
    with np.errstate(over="ignore", invalid="ignore"):  # as torch: beyond the range it is infinite
        return torch.from_numpy(np.sum(sums, axis=0) / np.float32(max(len(tokens), 1)))


def note_spread(out: StoredLayer, tokens: Tensor) -> None:
    """Variance and largest magnitude of the channels of valid tokens (n, D), where they are wanted."""
    if out.variance is None or out.largest is None:
        return
    if not len(tokens):
        out.variance[:] = out.largest[:] = 0
        return
    out.largest[:] = largest_magnitudes(tokens)
    with np.errstate(over="ignore", invalid="ignore"):  # values near the end of float32
        some = _widened(tokens[::SOME]) - out.mean.numpy()
        np.divide(np.square(some).sum(axis=0), np.float32(len(some)), out=out.variance)


def largest_magnitudes(tokens: Tensor) -> Array:
    """Of each channel of tokens (n, D), by the bits: without their sign, larger floats have larger ones.

    >>> largest_magnitudes(torch.tensor([[1.0, -3.0], [-2.0, 0.5]])).tolist()
    [2.0, 3.0]
    """
    signed = _bits(tokens)
    bits = np.maximum(signed.max(axis=0), 0)
    negative = signed.view(f"u{signed.itemsize}").max(axis=0)
    sign = np.array(1, dtype=negative.dtype) << np.array(8 * signed.itemsize - 1, dtype=negative.dtype)
    below = np.where(negative & sign, negative ^ sign, 0).astype(bits.dtype)
    largest = torch.from_numpy(np.maximum(bits, below)).view(tokens.dtype)
    return largest.float().numpy()


def copy_alone(out: Tensor, tokens: Tensor) -> None:
    """Copy tokens (n, D), converted, in the thread of the caller.

    NumPy works alone; its conversions are slow, so torch does those, in blocks that it does not share. The
    number of threads stays as it is.
    """
    if tokens.dtype == out.dtype:
        np.copyto(_bits(out), _bits(tokens))
        return
    # In one call: each call lets go of Python's lock, for which the thread that writes waits.
    torch._foreach_copy_(_small_blocks(out), _small_blocks(tokens))


def _widened(tokens: Tensor) -> Array:
    """(n, D) as float32: the same memory where it is."""
    if tokens.dtype == torch.float32:
        return tokens.detach().numpy()
    wide = torch.empty(tokens.shape)
    copy_alone(wide, tokens.detach())
    return wide.numpy()


def _is_finite(stored: Tensor) -> bool:
    """By the bits: of all floats, infinities and NaN have the largest but for their sign."""
    signed = _bits(stored)
    unsigned = signed.view(f"u{signed.itemsize}")
    infinity = _INFINITY[stored.dtype]
    sign = 1 << (8 * signed.itemsize - 1)  # with it set, the largest of unsigned bits is the lowest float
    return int(signed.max(initial=0)) < infinity and int(unsigned.max(initial=0)) < infinity + sign


def _small_blocks(tokens: Tensor) -> tuple[Tensor, ...]:
    """Tokens (n, D) in blocks so small that torch does not share one between threads."""
    rows = max(1, (GRAIN - 1) // max(tokens.shape[1], 1))
    return torch.split(tokens, rows)


def _bits(floats: Tensor) -> "np.ndarray[Any, np.dtype[np.signedinteger[Any]]]":
    """The same memory as integers: NumPy has no bfloat16."""
    bits: np.ndarray[Any, np.dtype[np.signedinteger[Any]]]
    bits = floats.detach().view(_INTEGERS[floats.itemsize]).numpy()
    return bits
