"""Waveforms to log-mel spectrograms: batched, in float32, on the device of the waveforms.

Each spectrogram depends on its own waveform alone; a batch only saves overhead.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from featcache.errors import AudioError

EPSILON = 1.1920928955078125e-07  # float32 eps: Kaldi's floor of a mel energy
LOG_FLOOR = math.log(EPSILON)

# On a CPU one clip at a time: the frames of 10 s (998 x 512 samples, 2 MB) stay in cache, and a batch
# gives the very bits of each clip alone. A GPU wants many frames at once (65,536: 134 MB).
FRAMES_PER_BLOCK = {"cpu": 1, "cuda": 65_536}


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

    def __call__(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Natural logarithms of the mel energies of each waveform.

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
        with torch.autocast(device_type(waveforms), enabled=False):
            prepared = [self._prepare(waveform) for waveform in waveforms]
            blocks = in_blocks(prepared, self.num_frames)
            return [log_mel for block in blocks for log_mel in self._log_mel(block)]

    def _prepare(self, waveform: Tensor) -> Tensor:
        waveform = waveform.float()
        centred = waveform - waveform.mean() if self.remove_mean else waveform
        return centred * self.gain if self.gain != 1.0 else centred

    def _log_mel(self, waveforms: list[Tensor]) -> list[Tensor]:
        window, bank = _kaldi_tables(self.sample_rate, self.window, self.num_mels, waveforms[0].device)
        batch = pad_sequence(waveforms, batch_first=True)
        frames = batch.unfold(1, self.frame_length, self.frame_shift)  # (B, T, frame_length)
        frames = frames - frames.mean(-1, keepdim=True)
        # Zero-padded to the FFT's length. Both windows are zero at a frame's first sample, which is
        # the one that pre-emphasis treats differently.
        padded = frames.new_zeros(*frames.shape[:2], 2 * len(bank))
        inside = padded[..., 1 : self.frame_length]
        torch.sub(frames[..., 1:], frames[..., :-1] * 0.97, out=inside).mul_(window[1:])
        power = torch.fft.rfft(padded).abs().square_()[..., :-1]  # Nyquist has no weight in the bank
        log_mels = (power @ bank).clamp_min_(EPSILON).log_()
        counts = [self.num_frames(len(waveform)) for waveform in waveforms]
        return [log_mel[:count] for log_mel, count in zip(log_mels, counts, strict=True)]


def require_samples(found: int, wanted: int, sample_rate: int, what: str) -> None:
    """Raise AudioError if a waveform is shorter than ``what``."""
    if found < wanted:
        raise AudioError(
            f"the clip has {found} samples ({found / sample_rate:.3f} s), fewer than {what} "
            f"({wanted} samples, {wanted / sample_rate:.3f} s at {sample_rate} Hz); leave it out or pad it"
        )


def in_blocks(waveforms: list[Tensor], num_frames: Callable[[int], int]) -> Iterator[list[Tensor]]:
    """Neighbours together as long as the frames of a block, padding included, stay few."""
    block: list[Tensor] = []
    longest = 0
    for waveform in waveforms:
        own = num_frames(len(waveform))
        longest = max(longest, own)
        if block and longest * (len(block) + 1) > FRAMES_PER_BLOCK.get(waveform.device.type, 65_536):
            yield block
            block, longest = [], own
        block.append(waveform)
    if block:
        yield block


def device_type(waveforms: Sequence[Tensor]) -> str:
    """Where the waveforms are: 'cpu', 'cuda' …"""
    return waveforms[0].device.type if waveforms else "cpu"


@lru_cache(maxsize=32)
def _kaldi_tables(
    sample_rate: int, window: str, num_mels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Window (frame_length,) and mel bank (bins below Nyquist, num_mels) of one setting."""
    length = sample_rate // 40
    num_bins = 2 ** math.ceil(math.log2(length)) // 2
    hann = torch.hann_window(length, periodic=False)
    low, high = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (20.0, sample_rate / 2))
    step = (high - low) / (num_mels + 1)
    index = torch.arange(num_mels)
    left, centre, right = (low + (index + shift) * step for shift in (0.0, 1.0, 2.0))
    mels = 1127.0 * (1.0 + sample_rate / (2 * num_bins) * torch.arange(num_bins) / 700.0).log()[:, None]
    bank = torch.minimum((mels - left) / (centre - left), (right - mels) / (right - centre)).clamp_min(0)
    return (hann if window == "hanning" else hann**0.85).to(device), bank.to(device)
