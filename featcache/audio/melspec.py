"""Mel spectrograms in decibels, as torchaudio's transforms make them for one clip: Dasheng's input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torchaudio.functional import melscale_fbanks

from featcache.audio.blocks import device_type, in_blocks, require_samples


class MelDecibels(nn.Module):
    """Centred power spectrogram, 64 mel triangles, 10 log10, at most ``top_db`` below the clip's peak.

    torchaudio takes the peak over a whole batch of (B, mels, frames), so that a quiet clip changes
    beside a loud one (by 8.9 dB in a test of ours); here it is each clip's own.

    Source:
        torchaudio 2.11 ``MelSpectrogram(16000, n_fft=512, hop_length=160, f_max=8000, n_mels=64)``
        then ``AmplitudeToDB("power", top_db=120)``; dasheng 0.0.9 builds it so

    >>> MelDecibels()([torch.zeros(16_000)])[0].shape
    torch.Size([101, 64])
    """

    window: Tensor
    bank: Tensor
    sample_rate = 16_000  # [Hz]
    n_fft = 512
    hop = 160  # [samples]
    top_db = 120.0

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(self.n_fft))
        with torch.device("cpu"):  # also where the model is laid out without memory: it looks at the values
            bank = melscale_fbanks(self.n_fft // 2 + 1, 0.0, self.sample_rate / 2, 64, self.sample_rate)
        self.register_buffer("bank", bank)

    def num_frames(self, num_samples: int) -> int:
        """How many frames a waveform gives."""
        return 1 + num_samples // self.hop

    def forward(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to decibels (num_frames(L_i), 64), float32.

        Raises:
            AudioError: a waveform is too short to be mirrored at its ends.
        """
        half = self.n_fft // 2
        for waveform in waveforms:
            require_samples(len(waveform), half + 1, self.sample_rate, "half a window")
        with torch.autocast(device_type(waveforms), enabled=False):
            # Mirrored by its own end before it shares a padded block.
            mirrored = [pad(w.float()[None], (half, half), mode="reflect")[0] for w in waveforms]
            blocks = in_blocks(mirrored, self._num_frames_mirrored)
            return [decibels for block in blocks for decibels in self._decibels(block)]

    def _num_frames_mirrored(self, num_samples: int) -> int:
        return self.num_frames(num_samples - self.n_fft)

    def _decibels(self, mirrored: list[Tensor]) -> list[Tensor]:
        batch = pad_sequence(mirrored, batch_first=True)
        spectrum = torch.stft(
            batch, self.n_fft, self.hop, window=self.window, center=False, return_complex=True
        )
        squares = torch.view_as_real(spectrum.transpose(1, 2)).square().flatten(-2)  # re, im, re, im …
        energies = squares @ self.bank.repeat_interleave(2, dim=0)  # (B, frames, mels)
        decibels = energies.clamp_min_(1e-10).log10_().mul_(10.0)
        counts = [self._num_frames_mirrored(len(waveform)) for waveform in mirrored]
        own = [clip[:count] for clip, count in zip(decibels, counts, strict=True)]
        return [clip.clamp_min(clip.max() - self.top_db) for clip in own]
