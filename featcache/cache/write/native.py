"""One layer of one clip in the form that is stored, in one pass over its tokens: ``csrc/clip.c``."""

import ctypes
from functools import cache
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


@cache
def library() -> ctypes.CDLL | None:
    """The compiled code; None where there is none."""
    return compiled.library(SOURCE, FLAGS)


def serves(tokens: Tensor) -> bool:
    """Whether tokens of this type can be taken here: NumPy sums those of one channel in another order."""
    return tokens.dtype in SOURCES and tokens.shape[1] > 1 and library() is not None


def store(
    out: StoredLayer, tokens: Tensor, valid: int, dtype: StoreDtype, channels: Tensor | None, given: bool
) -> bool:
    """As `plain.store`, of tokens whose values lie side by side; C runs without Python's lock."""
    code = library()
    assert code is not None  # serves() said so
    D = tokens.shape[1]
    work = torch.empty(3, D + 8)
    clip = _Clip(
        tokens=tokens.data_ptr(), source=SOURCES.index(tokens.dtype), n=len(tokens), D=D, valid=valid,
        stride=tokens.stride(0) * tokens.itemsize, store=STORED.index(dtype.name), row=out.row.data_ptr(),
        row_bytes=out.row.stride(0) * out.row.itemsize, mean=out.mean.data_ptr(), given=given,
        work=work.data_ptr(),
    )  # fmt: skip
    if channels is not None:
        clip.channels = channels.data_ptr()
    if out.scale is not None:
        clip.scale = out.scale.data_ptr()
    if out.variance is not None and out.largest is not None:
        clip.variance, clip.largest = out.variance.ctypes.data, out.largest.ctypes.data
    return bool(code.featcache_clip(ctypes.byref(clip)))
