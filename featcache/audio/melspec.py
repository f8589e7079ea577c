"""Centred mel spectrograms, as torchaudio's transforms and their like make them for one clip, for many."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import melscale_fbanks

from featcache.audio.blocks import device_type, in_blocks, require_samples


class CentredMel(nn.Module):
    """Power spectrum of frames centred on every ``hop`` samples of a mirrored clip, mel bands, a compression.

    A subclass says the compression, clip by clip.

    Args:
        window: (n_fft,) or shorter, then centred in the frame
        bank: (n_fft // 2 + 1, mels)
        stored: whether checkpoints hold window and bank
    """

    window: Tensor
    bank: Tensor
    lost = 0  # [samples] of a waveform that preparing takes

    def __init__(
        self, *, sample_rate: int, n_fft: int, hop: int, window: Tensor, bank: Tensor, stored: bool = False
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_fft, self.hop = sample_rate, n_fft, hop  # [Hz], [samples], [samples]
        self.register_buffer("window", window, persistent=stored)
        self.register_buffer("bank", bank, persistent=stored)

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform gives."""
        return 1 + (num_samples - self.lost) // self.hop

    def fewest_samples(self, frames: int) -> int:
        """The shortest waveform that gives so many frames and can be mirrored at its ends."""
        return max((frames - 1) * self.hop + self.lost, self.n_fft // 2 + 1 + self.lost)

    def prepare(self, waveform: Tensor) -> Tensor:
        """A waveform (L,) before framing."""
        return waveform

    def compress(self, energies: Tensor) -> Tensor:
        """Mel energies (frames, mels) of one clip to what its model reads."""
        raise NotImplementedError

    def forward(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to (num_frames(L_i), mels), float32.

        Raises:
            AudioError: a waveform is too short to be mirrored at its ends.
        """
        half = self.n_fft // 2
        for waveform in waveforms:
            require_samples(len(waveform), half + 1 + self.lost, self.sample_rate, "half a window")
        with torch.autocast(device_type(waveforms), enabled=False):
            # Mirrored by its own end before it shares a padded block.
            ready = [self.prepare(waveform.float()) for waveform in waveforms]
            mirrored = [pad(waveform[None], (half, half), mode="reflect")[0] for waveform in ready]
            blocks = in_blocks(mirrored, self._num_frames_mirrored)
            return [self.compress(clip) for block in blocks for clip in self._energies(block)]

    def _num_frames_mirrored(self, num_samples: int) -> int:
        return 1 + (num_samples - self.n_fft) // self.hop

    def _energies(self, mirrored: list[Tensor]) -> list[Tensor]:
        batch = pad_sequence(mirrored, batch_first=True)
        spectrum = torch.stft(
            batch, self.n_fft, self.hop, len(self.window), self.window, center=False, return_complex=True
        )
        squares = torch.view_as_real(spectrum.transpose(1, 2)).square().flatten(-2)  # re, im, re, im …
        energies = squares @ self.bank.repeat_interleave(2, dim=0)  # (B, frames, mels)
        counts = [self._num_frames_mirrored(len(waveform)) for waveform in mirrored]
        return [clip[:count] for clip, count in zip(energies, counts, strict=True)]


class MelDecibels(CentredMel):
    """64 bands in decibels, at most ``top_db`` below the clip's peak: Dasheng's input and ATST-Frame's.

    torchaudio takes the peak over a whole batch of (B, mels, frames), so that a quiet clip changes
    beside a loud one (by 8.9 dB in a test of ours); here it is each clip's own.

    Source:
        torchaudio 2.11 ``MelSpectrogram(16000, n_fft, hop_length=160, f_min, f_max, n_mels=64)`` then
        ``AmplitudeToDB("power", top_db)``

    >>> MelDecibels()([torch.zeros(16_000)])[0].shape
    torch.Size([101, 64])
    """

    def __init__(
        self,
        *,
        n_fft: int = 512,
        low: float = 0.0,
        high: float = 8000.0,
        top_db: float = 120.0,
        stored: bool = True,
    ) -> None:
        with torch.device("cpu"):  # also where the model is laid out without memory: it looks at the values
            bank = melscale_fbanks(n_fft // 2 + 1, low, high, 64, 16_000)
        super().__init__(
            sample_rate=16_000,
            n_fft=n_fft,
            hop=160,
            window=torch.hann_window(n_fft),
            bank=bank,
            stored=stored,
        )
        self.top_db = top_db

    def compress(self, energies: Tensor) -> Tensor:
        """Mel energies (frames, 64) to decibels."""
        decibels = energies.clamp_min(1e-10).log10().mul(10.0)
        return decibels.clamp_min(decibels.max() - self.top_db)


class SlaneyLogMel(CentredMel):
    """80 bands from 50 Hz to Nyquist in natural logarithms: M2D's input.

    Source:
        nnAudio 0.3.4 ``MelSpectrogram(16000, n_fft=400, hop_length=160, n_mels=80, fmin=50, fmax=8000)``, as
        nttcslab/m2d @f0c4128 examples/portable_m2d.py calls it
    """

    def __init__(self) -> None:
        bank = slaney_bank(num_mels=80, n_fft=400, low=50.0, high=8000.0, sample_rate=16_000)
        super().__init__(sample_rate=16_000, n_fft=400, hop=160, window=torch.hann_window(400), bank=bank)

    def compress(self, energies: Tensor) -> Tensor:
        """Mel energies (frames, 80) to logarithms."""
        return (energies + torch.finfo().eps).log()


def slaney_bank(*, num_mels: int, n_fft: int, low: float, high: float, sample_rate: int) -> Tensor:
    """Triangles of equal area on Slaney's mel scale (linear below 1 kHz), (n_fft // 2 + 1, mels).

    torchaudio's are computed in float32, which is off by up to 0.1 % and moves M2D's tokens by 4e-5.

    Source:
        librosa 0.7 ``filters.mel``, which nnAudio holds a copy of
    """
    step = math.log(6.4) / 27.0  # above 1 kHz, which is 15 mel

    def to_mel(hertz: float) -> float:
        return 3.0 * hertz / 200.0 if hertz < 1000.0 else 15.0 + math.log(hertz / 1000.0) / step

    mels = torch.linspace(to_mel(low), to_mel(high), num_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * ((mels - 15.0) * step).exp())  # [Hz]
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * sample_rate / n_fft
    rising = (bins - edges[:-2]) / edges.diff()[:-1]
    falling = (edges[2:] - bins) / edges.diff()[1:]
    triangles = torch.minimum(rising, falling).clamp_min(0.0)
    return (triangles * 2.0 / (edges[2:] - edges[:-2])).float()


class EmphasisedLogMel(CentredMel):
    """128 of Kaldi's bands up to 15 kHz after pre-emphasis, at 32 kHz, normalised: PaSST's input.

    Source:
        hear21passt 0.0.26 ``AugmentMelSTFT`` in evaluation, as its ``get_basic_model`` builds it
    """

    lost = 1  # pre-emphasis has nothing before the first

    def __init__(self) -> None:
        bank, _ = get_mel_banks(128, 1024, 32_000.0, 0.0, 15_000.0, 100.0, -500.0, 1.0)
        window = torch.hann_window(800, periodic=False)
        super().__init__(
            sample_rate=32_000, n_fft=1024, hop=320, window=window, bank=pad(bank, (0, 1)).T.contiguous()
        )

    def prepare(self, waveform: Tensor) -> Tensor:
        """A waveform (L,) to (L - 1,)."""
        return waveform[1:] - 0.97 * waveform[:-1]

    def compress(self, energies: Tensor) -> Tensor:
        """Mel energies (frames, 128) to normalised logarithms."""
        return ((energies + 1e-5).log() + 4.5) / 5.0
