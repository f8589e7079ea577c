"""One layer of one clip in the form that is stored, in one pass over its tokens: ``csrc/clip.c``."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from featcache import compiled
from featcache.cache.format.dtypes import StoreDtype
from featcache.cache.write.plain import StoredLayer

SOURCE = Path(__file__).parent / "csrc" / "clip.c"
FLAGS = ("-ffp-contract=off", "-fno-strict-aliasing")  # a product and a sum round twice, as in plain.py
STORED = ("float32", "float16", "bfloat16", "int8", "int4")  # in the order of csrc/clip.c
SOURCES = (torch.float32, torch.float16, torch.bfloat16)


class _Clip(ctypes.Structure):
    """As ``Clip`` in csrc/clip.c."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("source", "stride", "n", "D", "valid", "store")),
        ("row", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("channels", "scale", "mean")),
        ("given", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("variance", "largest", "work")),
    )


def library() -> ctypes.CDLL | None:
    """The compiled code; None where there is none."""
    return compiled.library(SOURCE, FLAGS)


def serves(tokens: Tensor) -> bool:
    """Whether tokens of this type can be taken here: NumPy sums those of one channel in another order."""
    return tokens.dtype in SOURCES and tokens.shape[1] > 1 and library() is not None


class StorePass:
    """`plain.store` into one place, in C and without Python's lock; what never changes is set once.

    Args:
        out: where tokens of ``dtype`` go; it must stay where it is
    """

    def __init__(self, out: StoredLayer, dtype: StoreDtype) -> None:
        code = library()
        assert code is not None  # serves() said so
        self._run, self._out = code.featcache_clip, out
        D = len(out.mean)
        self._work = torch.empty(3, D + 8)
        self._clip = _Clip(
            D=D, store=STORED.index(dtype.name), row=out.row.data_ptr(), mean=out.mean.data_ptr(),
            row_bytes=out.row.stride(0) * out.row.itemsize, work=self._work.data_ptr(),
        )  # fmt: skip
        if out.scale is not None:
            self._clip.scale = out.scale.data_ptr()
        if out.variance is not None and out.largest is not None:
            self._clip.variance, self._clip.largest = out.variance.ctypes.data, out.largest.ctypes.data
        self._pointer = ctypes.byref(self._clip)

    def __call__(self, tokens: Tensor, valid: int, channels: Tensor | None, given: bool) -> bool:
        """As `plain.store`, of tokens whose values lie side by side."""
        clip = self._clip
        clip.tokens, clip.source = tokens.data_ptr(), SOURCES.index(tokens.dtype)
        clip.stride, clip.n = tokens.stride(0) * tokens.itemsize, tokens.shape[0]
        clip.valid, clip.given = valid, given
        clip.channels = None if channels is None else channels.data_ptr()
        return bool(self._run(self._pointer))
