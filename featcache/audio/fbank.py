"""Waveforms to log-mel spectrograms: batched, in float32, on the device of the waveforms.

Each spectrogram depends on its own waveform alone; a batch only saves overhead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance.kaldi import get_mel_banks

from featcache.audio import fbank_pass
from featcache.audio.blocks import device_type, in_blocks, require_samples
from featcache.audio.fbank_pass import FbankPass, Weights, weights_of
from featcache.scratch import Scratch

Bands = tuple[tuple[int, int, Tensor], ...]
EPSILON = 1.1920928955078125e-07  # float32 eps: Kaldi's floor of a mel energy
LOG_FLOOR = math.log(EPSILON)


@dataclass(frozen=True, kw_only=True)
class KaldiFbank:
    """Kaldi's log-mel filter bank, as torchaudio computes it for one clip, for many.

    Frames of 25 ms every 10 ms that lie wholly inside the waveform. In each frame: remove the
    mean, pre-emphasis 0.97, window, power spectrum, mel triangles from 20 Hz to Nyquist, log.

    Source:
        torchaudio 2.11 ``compliance.kaldi.fbank(num_mel_bins=..., window_type=..., dither=0.0)``

    >>> fbank = KaldiFbank(sample_rate=16_000)
    >>> [tuple(f.shape) for f in fbank([torch.zeros(16_000), torch.zeros(8_000)])]
    [(98, 128), (48, 128)]
    """

    sample_rate: int  # [Hz]
    window: str = "hanning"  # or "povey": hanning ** 0.85, Kaldi's own
    num_mels: int = 128
    gain: float = 1.0  # on the waveform: 2**15 where the authors feed 16-bit integers
    remove_mean: bool = True  # of the whole waveform, before framing

    @property
    def frame_length(self) -> int:
        """[samples]"""
        return self.sample_rate // 40

    @property
    def frame_shift(self) -> int:
        """[samples]"""
        return self.sample_rate // 100

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform gives.

        >>> KaldiFbank(sample_rate=16_000).num_frames(160_000)
        998
        """
        return max(0, 1 + (num_samples - self.frame_length) // self.frame_shift)

    def __call__(
        self,
        waveforms: Sequence[Tensor],
        most_frames: int | None = None,
        then: Callable[[Tensor], Tensor] = lambda log_mel: log_mel,
    ) -> list[Tensor]:
        """Natural logarithms of the mel energies of each waveform.

        Args:
            most_frames: those after it are not computed; the mean is that of the whole waveform still
            then: done with each result at once, while it is in the cache; it may write into it

        Shape:
            - waveforms: (L_i,) each, in [-1, 1]
            - output: (num_frames(L_i), num_mels) each, float32

        Raises:
            AudioError: a waveform is shorter than one frame.
        """
        for waveform in waveforms:
            require_samples(
                len(waveform), self.frame_length, self.sample_rate, "one frame of the filter bank"
            )
        with torch.no_grad(), torch.autocast(device_type(waveforms), enabled=False):
            most = None if most_frames is None else self.frame_length + (most_frames - 1) * self.frame_shift
            if device_type(waveforms) == "cpu" and fbank_pass.serves(self.num_mels):
                window, weights = _sparse_tables(self.sample_rate, self.window, self.num_mels)
                energies = FbankPass(self.frame_shift, _fft_length(len(window)), window, weights, EPSILON)
                return [then(energies(self._prepare(waveform)[:most]).log_()) for waveform in waveforms]
            prepared = [self._prepare(waveform)[:most] for waveform in waveforms]
            blocks = in_blocks(prepared, self.num_frames)
            scratch = Scratch()  # shared by the blocks: a third of the time would go into fresh pages
            return [then(log_mel) for block in blocks for log_mel in self._log_mel(block, scratch)]

    def _prepare(self, waveform: Tensor) -> Tensor:
        waveform = waveform.float()
        if self.remove_mean:
            # A float32 sum depends on the number of threads, enough to move tokens by 7e-5.
            exact = torch.float32 if waveform.device.type == "mps" else torch.float64  # MPS has no float64
            waveform = waveform - waveform.mean(dtype=exact).float()
        return waveform * self.gain if self.gain != 1.0 else waveform

    def _log_mel(self, waveforms: list[Tensor], scratch: Scratch) -> list[Tensor]:
        window, bands = _tables(self.sample_rate, self.window, self.num_mels, waveforms[0].device)
        alone = len(waveforms) == 1  # no copy then
        batch = waveforms[0][None] if alone else pad_sequence(waveforms, batch_first=True)
        frames = batch.unfold(1, self.frame_length, self.frame_shift)  # (B, T, frame_length)
        B, T, length = frames.shape
        delayed, padded, spectrum, flat = _buffers(scratch, B * T, length, batch.device)
        # Up to the FFT the roundings are torchaudio's own, operation by operation: near the floor a
        # faster order of the same arithmetic moves single bins by 2e-3, and tokens beyond 2e-5.
        torch.sub(frames, frames.mean(-1, keepdim=True), out=flat.view(B, T, length))
        torch.mul(flat[:, :-1], 0.97, out=delayed)
        # Both windows are zero at a frame's first sample, where pre-emphasis has no sample before.
        torch.sub(flat[:, 1:], delayed, out=padded[:, 1:length]).mul_(window[1:])
        torch.fft.rfft(padded, out=spectrum)
        squares = torch.view_as_real(spectrum).flatten(1).square_()  # re, im, re, im …
        log_mels = squares.new_empty(B * T, self.num_mels)
        for (begin, end, band), out in zip(bands, log_mels.tensor_split(len(bands), dim=1), strict=True):
            torch.mm(squares[:, begin:end], band, out=out)
        log_mels.clamp_min_(EPSILON).log_()
        counts = [self.num_frames(len(waveform)) for waveform in waveforms]
        return [clip[:count] for clip, count in zip(log_mels.view(B, T, -1), counts, strict=True)]


def _buffers(scratch: Scratch, rows: int, length: int, device: torch.device) -> tuple[Tensor, ...]:
    """Room for so many frames: delayed, padded (zero outside the window), spectrum, centred."""
    fft_length = _fft_length(length)
    return (
        scratch.take("delayed", (rows, length - 1), device=device),
        scratch.take("padded", (rows, fft_length), device=device, zeroed=True),
        scratch.take("spectrum", (rows, fft_length // 2 + 1), torch.complex64, device),
        scratch.take("centred", (rows, length), device=device),
    )


@lru_cache(maxsize=32)
def _tables(sample_rate: int, window: str, num_mels: int, device: torch.device) -> tuple[Tensor, Bands]:
    """Window (frame_length,) and mel bank of one setting."""
    bands = in_bands(mel_bank(sample_rate, num_mels).to(device))
    return _window(sample_rate, window).to(device), bands


@lru_cache(maxsize=32)
def _sparse_tables(sample_rate: int, window: str, num_mels: int) -> tuple[Tensor, Weights]:
    """As `_tables`, for `FbankPass`."""
    return _window(sample_rate, window), weights_of(mel_bank(sample_rate, num_mels))


def _window(sample_rate: int, window: str) -> Tensor:
    hann = torch.hann_window(sample_rate // 40, periodic=False)
    return hann if window == "hanning" else hann**0.85


def mel_bank(sample_rate: int, num_mels: int) -> Tensor:
    """Kaldi's triangles from 20 Hz to Nyquist, which has no weight and is left out: (bins, mels)."""
    fft_length = _fft_length(sample_rate // 40)
    # The numbers after 20 Hz: up to Nyquist, and no vocal tract length is warped.
    bank: Tensor = get_mel_banks(num_mels, fft_length, float(sample_rate), 20.0, 0.0, 100.0, -500.0, 1.0)[0]
    return bank.T


def _fft_length(frame_length: int) -> int:
    """The next power of two."""
    return 1 << (frame_length - 1).bit_length()


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
