"""From a file's rate to an encoder's, in bounded memory whatever the two are."""

import math

import soxr
import torch
import torchaudio.functional
from torch import Tensor

# Part of every fingerprint, and so it stays as it was, without a word of soxr: a longer text would part
# every cache from its fingerprint for the sake of rates that nearly always ended a run for want of memory.
RESAMPLER = "torchaudio.functional.resample, sinc_interp_hann, width 6, rolloff 0.99"
LARGEST_KERNEL = 1 << 24  # values; making one takes 0.3 GB


def kernel_size(rate: int, wanted: int) -> int:
    """Values in torchaudio's kernel: one filter for each phase, each as long as the reduced rate.

    >>> kernel_size(44_100, 16_000), kernel_size(44_101, 16_000)
    (76000, 706160000)
    """
    common = math.gcd(rate, wanted)
    rate, wanted = rate // common, wanted // common
    width = math.ceil(6 * rate / (min(rate, wanted) * 0.99))
    return wanted * (rate + 2 * width)


def resample(waveform: Tensor, rate: int, wanted: int) -> Tensor:
    """A waveform (L,) at another rate [Hz], as torchaudio does it where its kernel fits in memory.

    Rates with almost no common divisor (44,101 to 16,000 Hz: a kernel of 3 GB, made in 9) go through
    soxr, whose filters do not grow with them.

    Shape:
        - waveform: (L,) float32
        - output: (ceil(L * wanted / rate),)

    Source:
        soxr, quality "HQ": https://github.com/dofuuz/python-soxr
    """
    if rate == wanted:
        return waveform
    if kernel_size(rate, wanted) <= LARGEST_KERNEL:
        resampled: Tensor = torchaudio.functional.resample(waveform, rate, wanted)
        return resampled
    resampled = torch.from_numpy(soxr.resample(waveform.numpy(), rate, wanted, quality="HQ"))
    length = -(-len(waveform) * wanted // rate)
    return torch.nn.functional.pad(resampled[:length], (0, max(0, length - len(resampled))))
