"""Padded, normalised filter banks cut into patches: the input of every ViT-like encoder here."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from featcache.audio.blocks import require_samples
from featcache.audio.fbank import KaldiFbank
from featcache.encoders.classifier import Classifies
from featcache.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Patches:
    """From waveforms to (frames, mels) features of one fixed shape, and which patches are audio."""

    fbank: KaldiFbank
    mean: float
    scale: float  # features = (log_mel - mean) / scale
    frames: int  # of every clip, after padding at the end or cutting
    pad_value: float | None = 0.0  # log-mel of appended frames; None: the clip's own minimum
    pad_samples: int = 0  # [samples] zeros are appended to shorter waveforms up to this length
    patch: int = 16  # side of a square patch
    stride: int = 16  # between patches
    # Of a clip that is too long: take mean and frames before it is cut, as some authors do.
    whole_clips: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """(F, T)"""
        rows, columns = ((n - self.patch) // self.stride + 1 for n in (self.fbank.num_mels, self.frames))
        return rows, columns

    @property
    def needed_seconds(self) -> float:
        """What mean and frames of a whole clip are made of [s]: all of it where its mean is removed."""
        if self.fbank.remove_mean:
            return math.inf
        samples = self.fbank.frame_length + (self.frames - 1) * self.fbank.frame_shift
        return samples / self.fbank.sample_rate

    def features(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to features (frames, mels) each.

        Raises:
            AudioError: a waveform is shorter than one patch.
        """
        for waveform in waveforms:
            self.valid_tokens(len(waveform))
        # Not all of them: by nothing it would copy.
        padded = [
            pad(w, (0, self.pad_samples - len(w))) if len(w) < self.pad_samples else w for w in waveforms
        ]
        return self.fbank(padded, self.frames, self._fit)

    def _fit(self, log_mel: Tensor) -> Tensor:
        log_mel = log_mel[: self.frames]
        value = log_mel.min().item() if self.pad_value is None else self.pad_value
        frames, mels = log_mel.shape
        fitted = log_mel.new_empty(self.frames, mels)
        torch.sub(log_mel, self.mean, out=fitted[:frames])
        fitted[frames:].fill_(value).sub_(self.mean)
        return fitted.div_(self.scale)

    def valid_tokens(self, num_samples: int) -> int:
        """Tokens of the columns that begin within the audio; a column partly padding counts.

        Raises:
            AudioError: the waveform is shorter than one patch.
        """
        shortest = self.fbank.frame_length + (self.patch - 1) * self.fbank.frame_shift
        require_samples(num_samples, shortest, self.fbank.sample_rate, "one patch")
        rows, columns = self.grid
        return rows * min(columns, math.ceil(self.fbank.num_frames(num_samples) / self.stride))


class PatchEncoder(Classifies):
    """What encoders of padded patches share; a subclass adds ``forward``."""

    def __init__(
        self,
        patches: Patches,
        *,
        clip_seconds: float,
        dim: int,
        depth: int,
        has_cls: bool,
        about: dict[str, Any],
    ) -> None:
        super().__init__()
        self.patches = patches
        self.sample_rate = patches.fbank.sample_rate
        self.clip_seconds = clip_seconds
        self.decode_seconds = patches.needed_seconds if patches.whole_clips else clip_seconds
        self.grid = patches.grid
        self.dim = dim
        self.depth = depth
        self.has_cls = has_cls
        self._about = about

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to normalised features (frames, mels), always float32."""
        return self.patches.features(waveforms)

    def valid_tokens(self, num_samples: int) -> int:
        """How many of the clip's tokens stand for audio rather than padding."""
        return self.patches.valid_tokens(num_samples)

    def settings(self) -> dict[str, Any]:
        """Preprocessing and architecture as JSON values."""
        size = {"dim": self.dim, "depth": self.depth, "has_cls": self.has_cls, "grid": list(self.grid)}
        return {**self._about, **size, "input": asdict(self.patches)}


def clip_samples(clip_seconds: float, sample_rate: int) -> int:
    """Samples of a clip.

    Raises:
        InputError: the clip is no length.
    """
    if not (math.isfinite(clip_seconds) and clip_seconds > 0):
        raise InputError(f"clip seconds must be a positive number, not {clip_seconds}")
    return round(clip_seconds * sample_rate)


def clip_frames(fbank: KaldiFbank, clip_seconds: float) -> int:
    """Frames of a clip before padding.

    Raises:
        InputError: the clip is no length, or shorter than one patch of 16 frames.

    >>> clip_frames(KaldiFbank(sample_rate=16_000), 10.0)
    998
    """
    frames = fbank.num_frames(clip_samples(clip_seconds, fbank.sample_rate))
    if frames < 16:
        raise InputError(
            f"clips of {clip_seconds} s give {frames} frames, fewer than one patch of 16; "
            "take at least 0.175 s"
        )
    return frames


def round_up(frames: int, multiple: int) -> int:
    """The next multiple.

    >>> [round_up(n, 128) for n in (98, 498, 998)]  # the authors' lengths for 1, 5 and 10 s
    [128, 512, 1024]
    """
    return math.ceil(frames / multiple) * multiple


def require_layers(layers: Sequence[int], first: int, last: int) -> list[int]:
    """The layers in order, once each.

    Raises:
        InputError: one is not between ``first`` and ``last``.
    """
    for layer in layers:
        if not first <= layer <= last:
            raise InputError(f"no layer {layer}; this encoder has layers {first} to {last}")
    return sorted(set(layers))
