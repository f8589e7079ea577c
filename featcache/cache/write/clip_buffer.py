"""One clip in the form that is stored, in memory that is used again for later clips."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.quantize import quantize
from featcache.errors import InputError

Array = np.ndarray[Any, Any]

_EIGHTH = 8
GRAIN = 32_768  # elements from which on torch shares an operation between threads (at::internal::GRAIN_SIZE)
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_TORCH_DTYPES = {"float32": torch.float32, "int32": torch.int32, "uint8": torch.uint8}
_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F80_0000}


class ClipBuffer:
    """One clip of a cache.

    Attributes:
        id: of the clip in its manifest
        key: 16 bytes that name its audio content
        rows: array name -> the clip's bytes there, (row_bytes,)
        valid: tokens that stand for audio
        channels: layer -> scales (D,) of its channels, where they have some; set before the first clip
    """

    def __init__(self, layout: CacheLayout) -> None:
        self._layout = layout
        self._arrays = {
            spec.name: torch.empty(
                (1, *spec.row_shape),
                dtype=layout.store.torch if spec.sharded else _TORCH_DTYPES[spec.zarr],
            )
            for spec in layout.arrays()
        }
        self.rows: dict[str, Bytes] = {
            name: array.view(torch.uint8).numpy().reshape(-1) for name, array in self._arrays.items()
        }
        # Memory that is new for each clip would cost as much as the arithmetic: its pages are faulted in.
        self._work = torch.empty(layout.num_tokens if layout.store.scaled else 0, layout.dim)
        self._variance = np.zeros((len(layout.layers), layout.dim), dtype=np.float32)
        self._largest = np.zeros((len(layout.layers), layout.dim), dtype=np.float32)
        self.channels: Mapping[int, Tensor] = {}
        self.id, self.key, self.valid = "", b"", 0

    def put(
        self,
        clip_id: str,
        key: bytes,
        tokens: Mapping[int, Tensor],
        vectors: Mapping[str, Mapping[int, Tensor]],
        valid: int,
    ) -> None:
        """Take one clip; ``vectors`` are its "mean" and "cls".

        Raises:
            InputError: a token is not finite or beyond the range of the storage dtype.
        """
        for place, layer in enumerate(self._layout.layers):
            for kind, by_layer in vectors.items():
                self._arrays[f"{kind}/{layer}"][0].copy_(by_layer[layer])
            self._put_tokens(clip_id, layer, tokens[layer])
            if self._layout.channels:
                self._note_spread(place, layer, tokens[layer][:valid])
        self._arrays["valid"][0] = self.valid = valid
        self._take_name(clip_id, key)

    def put_stored(
        self, clip_id: str, key: bytes, rows: Mapping[str, Bytes], tokens: Mapping[int, Tensor]
    ) -> None:
        """Take one clip that is in its final form already, such as `TokenCache.stored` gives it.

        Args:
            tokens: the same as floats, for the statistics
        """
        for name, row in self.rows.items():
            np.copyto(row, rows[name])
        self.valid = int(self._arrays["valid"][0])
        if self._layout.channels:
            for place, layer in enumerate(self._layout.layers):
                self._note_spread(place, layer, tokens[layer][: self.valid])
        self._take_name(clip_id, key)

    def spread(self, layer: int) -> tuple[Array, Array, Array]:
        """Mean, variance within the clip, and largest magnitude of a layer's channels: (D,) each."""
        place = self._layout.layers.index(layer)
        return self._arrays[f"mean/{layer}"][0].numpy(), self._variance[place], self._largest[place]

    def _note_spread(self, place: int, layer: int, tokens: Tensor) -> None:
        # The largest magnitude is that of all tokens; the variance is that of every eighth: all would cost
        # a third of storing the clip.
        if not len(tokens):
            self._variance[place] = self._largest[place] = 0
            return
        self._largest[place] = largest_magnitudes(tokens)
        with np.errstate(over="ignore", invalid="ignore"):  # values near the end of float32
            some = tokens[::_EIGHTH].detach().float().numpy() - self._arrays[f"mean/{layer}"][0].numpy()
            np.divide(np.einsum("nd,nd->d", some, some), np.float32(len(some)), out=self._variance[place])

    def _take_name(self, clip_id: str, key: bytes) -> None:
        self.id, self.key = clip_id, key
        self.rows["clip_key"][:] = np.frombuffer(key, dtype=np.uint8)

    def _put_tokens(self, clip_id: str, layer: int, tokens: Tensor) -> None:
        store, n = self._layout.store, len(tokens)
        row = self._arrays[f"tokens/{layer}"][0]
        self.rows[f"tokens/{layer}"].reshape(len(row), -1)[n:] = 0
        if store.scaled:
            scales, work = self._arrays[f"scale/{layer}"][0], self._work[:n]
            copy_alone(work, tokens)
            integers, scales[:n] = quantize(work, store, work, self.channels.get(layer))
            copy_alone(row[:n], integers)
            scales[n:] = 0
            finite = bool(scales.isfinite().all())
        else:
            copy_alone(row[:n], tokens)
            finite = _is_finite(row[:n])  # infinite where a value is beyond the range
        if not finite:
            raise _unstorable(clip_id, layer, _largest(tokens), store.name)


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


def _is_finite(stored: Tensor) -> bool:
    """By the bits: of all floats, infinities and NaN have the largest but for their sign."""
    signed = _bits(stored)
    unsigned = signed.view(f"u{signed.itemsize}")
    infinity = _INFINITY[stored.dtype]
    sign = 1 << (8 * signed.itemsize - 1)  # with it set, the largest of unsigned bits is the lowest float
    return int(signed.max(initial=0)) < infinity and int(unsigned.max(initial=0)) < infinity + sign


def copy_alone(out: Tensor, tokens: Tensor) -> None:
    """Copy tokens (n, D), converted, in the thread of the caller.

    A clip is too little work to share: beside an encoder and decoders that keep all cores busy, threads
    that wait for each other made storing it 20 times slower. NumPy works alone; its conversions are slow,
    so torch does those, in blocks that it does not share. The number of threads stays as it is.
    """
    if tokens.dtype == out.dtype:
        np.copyto(_bits(out), _bits(tokens))
        return
    # In one call: each call lets go of Python's lock, for which the thread that writes waits.
    torch._foreach_copy_(small_blocks(out), small_blocks(tokens))


def small_blocks(tokens: Tensor) -> tuple[Tensor, ...]:
    """Tokens (n, D) in blocks so small that torch does not share one between threads."""
    rows = max(1, (GRAIN - 1) // max(tokens.shape[1], 1))
    return torch.split(tokens, rows)


def _bits(floats: Tensor) -> "np.ndarray[Any, np.dtype[np.signedinteger[Any]]]":
    """The same memory as integers: NumPy has no bfloat16."""
    bits: np.ndarray[Any, np.dtype[np.signedinteger[Any]]]
    bits = floats.detach().view(_INTEGERS[floats.itemsize]).numpy()
    return bits


def _largest(tokens: Tensor) -> float:
    """The largest magnitude; NaN where there is one."""
    # aminmax is an order of magnitude faster than a norm of order infinity (0.2 against 3 ms a clip).
    lowest, highest = torch.aminmax(tokens) if len(tokens) else (torch.zeros(()), torch.zeros(()))
    return float(torch.maximum(-lowest, highest))  # NaN if either is


def _unstorable(clip_id: str, layer: int, largest: float, dtype: str) -> InputError:
    if not math.isfinite(largest):
        return InputError(
            f"clip {clip_id!r}: layer {layer} has NaN or infinite tokens; encode it in float32, "
            "or leave the clip out"
        )
    return InputError(
        f"clip {clip_id!r}: layer {layer} has a token value of {largest:g}, beyond the range of {dtype}; "
        "store it as bfloat16 or float32",
        options=("store_dtype",),
    )
