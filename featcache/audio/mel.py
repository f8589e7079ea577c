"""Mel triangles: Kaldi's and HTK's, over the bins of a spectrum."""

import math

import torch
from torch import Tensor

Bands = tuple[tuple[int, int, Tensor], ...]


def kaldi_bank(sample_rate: int, num_bins: int, num_mels: int) -> Tensor:
    """Triangles from 20 Hz to Nyquist (bins below Nyquist, mels), linear in mel.

    In torchaudio's own order and precision, so that the weights are the same bits.

    Source:
        torchaudio 2.11 ``compliance.kaldi.get_mel_banks``

    >>> kaldi_bank(16_000, 256, 128).shape
    torch.Size([256, 128])
    """
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (20.0, sample_rate / 2))
    step = (high - low) / (num_mels + 1)
    index = torch.arange(num_mels)
    left, centre, right = (low + (index + shift) * step for shift in (0.0, 1.0, 2.0))
    mels = 1127.0 * (1.0 + sample_rate / (2 * num_bins) * torch.arange(num_bins) / 700.0).log()[:, None]
    return torch.minimum((mels - left) / (centre - left), (right - mels) / (right - centre)).clamp_min(0)


def htk_bank(sample_rate: int, num_bins: int, num_mels: int) -> Tensor:
    """Triangles from 0 Hz to Nyquist (bins, mels), linear in hertz between edges that are linear in mel.

    Source:
        torchaudio 2.11 ``functional.melscale_fbanks(norm=None, mel_scale="htk")``
    """
    hertz = torch.linspace(0, sample_rate // 2, num_bins)
    top = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    edges = 700.0 * (10.0 ** (torch.linspace(0, top, num_mels + 2) / 2595.0) - 1.0)
    rising = (hertz[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[None, 2:] - hertz[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0)


def in_bands(bank: Tensor) -> Bands:
    """A bank (bins, mels) in eight parts, each over the bins alone that it weighs: an eighth of the work.

    A part is (begin, end, (end - begin, mels)) over squares in which a bin has two places, re and im.
    """
    bands = []
    for part in bank.tensor_split(8, dim=1):
        (used,) = part.any(dim=1).nonzero(as_tuple=True)
        first, last = (int(used.min()), int(used.max())) if len(used) else (0, 0)
        bands.append((2 * first, 2 * last + 2, part[first : last + 1].repeat_interleave(2, dim=0)))
    return tuple(bands)
