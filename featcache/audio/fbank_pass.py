"""Kaldi's filter bank in blocks of frames that stay in cache: ``csrc/fbank.c`` before and after the FFT."""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from featcache import compiled

SOURCE = Path(__file__).parent / "csrc" / "fbank.c"
FLAGS = ("-ffp-contract=off",)  # before the FFT a product and a sum round twice, as in fbank.py
ROWS = 128  # frames of a block: they and their spectra are 0.5 MB at 16 kHz
SIDE = 8  # as in csrc/fbank.c


class Weights(NamedTuple):
    """A mel bank without its zeros: of each mel the first bin, how many bins, and their weights in turn."""

    first: Tensor
    counts: Tensor
    values: Tensor


class _Fbank(ctypes.Structure):
    """As ``Fbank`` in csrc/fbank.c."""

    _fields_ = (
        ("waveform", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("shift", "length")),
        *((name, ctypes.c_void_p) for name in ("means", "window", "padded")),
        *((name, ctypes.c_int64) for name in ("bins", "mels")),
        *((name, ctypes.c_void_p) for name in ("first", "count", "weights", "power", "energies")),
        ("floor", ctypes.c_float),
    )


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled code; None where there is none."""
    code = compiled.library(SOURCE, FLAGS)
    if code is not None:
        block = (ctypes.c_int64, ctypes.c_int64)
        code.featcache_windowed.argtypes = (ctypes.c_void_p, *block)
        code.featcache_energies.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *block)
        code.featcache_windowed.restype = code.featcache_energies.restype = None
    return code


def serves(num_mels: int) -> bool:
    """Whether filter banks of so many mels can be computed here."""
    return num_mels % SIDE == 0 and library() is not None


def weights_of(bank: Tensor) -> Weights:
    """A bank (bins, mels) of triangles without its zeros.

    >>> weights_of(torch.tensor([[0.0, 1.0], [0.5, 0.0], [0.5, 0.0]]))
    Weights(first=tensor([1, 0], dtype=torch.int32), counts=tensor([2, 1], dtype=torch.int32), \
values=tensor([0.5000, 0.5000, 1.0000]))
    """
    used = bank.T > 0
    return Weights(used.int().argmax(1).int(), used.sum(1).int(), bank.T[used])


class FbankPass:
    """Mel energies of one waveform after another, on the CPU.

    Before the FFT the roundings are those of `KaldiFbank` in torch, bit for bit. After it the terms of a mel
    energy are summed in the order of bins, where a matrix product has an order of its own.

    Args:
        window: (frame_length,), zero at its first sample
        weights: of as many mels as `serves` allows, over the bins below Nyquist
        floor: of an energy
    """

    def __init__(
        self, frame_shift: int, fft_length: int, window: Tensor, weights: Weights, floor: float
    ) -> None:
        code = library()
        assert code is not None  # the caller asked
        self._windowed, self._energies = code.featcache_windowed, code.featcache_energies
        self._shift, self._window, self._weights = frame_shift, window, weights
        bins = fft_length // 2  # below Nyquist
        self._padded = torch.zeros(ROWS, 2 * bins)
        self._power = torch.empty(bins * SIDE)  # torch aligns to 64 bytes
        self._fbank = _Fbank(
            shift=frame_shift, length=len(window), window=window.data_ptr(), padded=self._padded.data_ptr(),
            bins=bins, mels=len(weights.first), first=weights.first.data_ptr(),
            count=weights.counts.data_ptr(), weights=weights.values.data_ptr(), power=self._power.data_ptr(),
            floor=floor,
        )  # fmt: skip
        self._pointer = ctypes.byref(self._fbank)

    def __call__(self, waveform: Tensor) -> Tensor:
        """Waveform (L,) to energies (frames, mels), both float32."""
        waveform = waveform.contiguous()
        means = waveform.unfold(0, len(self._window), self._shift).mean(-1)
        (frames,) = means.shape  # len() of a tensor takes a microsecond
        energies = torch.empty(frames, self._fbank.mels)
        fbank = self._fbank
        fbank.waveform, fbank.means = waveform.data_ptr(), means.data_ptr()
        fbank.energies = energies.data_ptr()
        for begin in range(0, frames, ROWS):
            rows = min(ROWS, frames - begin)
            self._windowed(self._pointer, begin, rows)
            spectrum = torch.fft.rfft(self._padded[:rows])
            self._energies(self._pointer, spectrum.data_ptr(), begin, rows)
        return energies
