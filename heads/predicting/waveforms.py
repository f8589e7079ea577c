"""A trained head on a waveform in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from featcache.audio.resample import resample
from featcache.errors import InputError
from featcache.heads.base import Head
from featcache.heads.predicting.decide import probabilities
from featcache.heads.predicting.predictor import Predictor
from featcache.manifest import Clip
from featcache.manifest.windows import window


class LoadedHead:
    """``load(path).predict``: the encoder is built at the first call."""

    def __init__(self, head: Head, config: Mapping[str, Any], path: Path) -> None:
        self._made: Predictor | None = None
        self._head, self._config, self._path = head, config, path

    def __call__(
        self, waveform: Tensor, sample_rate: int, hop_seconds: float | None = None, **encoder: Any
    ) -> "list[Heard]":
        """As `predict_waveform`.

        Args:
            encoder: ``encoder``, ``weights``, ``encoder_options`` and ``device`` as for `Predictor`
        """
        if self._made is None or encoder:
            self._made = Predictor(self._head, self._config, self._path, **encoder)
        return predict_waveform(self._made, waveform, sample_rate, hop_seconds)


class Heard(NamedTuple):
    """One window of a waveform."""

    start: float  # [s]
    end: float  # [s]
    scores: dict[str, float]  # class -> probability


def predict_waveform(
    predictor: Predictor, waveform: Tensor, sample_rate: int, hop_seconds: float | None = None
) -> list[Heard]:
    """What a head hears in each window of a waveform; windows are as long as its clips were.

    Args:
        waveform: (L,) or (channels, L), in [-1, 1]
        sample_rate: [Hz]
        hop_seconds: [s] between window starts; their length unless given

    Raises:
        InputError: the waveform is empty, not finite, or of another shape.
        AudioError: it is shorter than the encoder takes.
    """
    mono = torch.as_tensor(waveform, dtype=torch.float32)
    mono = mono.mean(dim=0) if mono.ndim == 2 else mono
    if mono.ndim != 1 or not len(mono) or not torch.isfinite(mono).all():
        shape = tuple(torch.as_tensor(waveform).shape)
        raise InputError(f"wanted a waveform (L,) or (channels, L) of finite samples, found {shape}")
    encoder = predictor.runner.encoder
    length, seconds = encoder.clip_seconds, len(mono) / sample_rate
    whole = Clip(id="", path=predictor.path)
    windows = window([whole], [seconds], length=length, hop=hop_seconds or length)
    cuts = [(own.start, seconds if own.end is None else own.end) for own in windows]
    sounds = [
        resample(
            mono[round(start * sample_rate) : round(end * sample_rate)], sample_rate, encoder.sample_rate
        )
        for start, end in cuts
    ]
    scores = probabilities(predictor.logits(sounds).numpy(), predictor.single)
    return [
        Heard(start, end, dict(zip(predictor.classes, map(float, own), strict=True)))
        for (start, end), own in zip(cuts, scores, strict=True)
    ]
