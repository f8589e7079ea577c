"""How many tokens a clip gives in a model of transformers: the model's own rule, or measured on shapes."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from featcache.errors import InputError

Extract = Callable[[Tensor], Tensor]  # waveform (L,) to features of any shape
_SHORTER = 0.6  # of a clip: does the extractor pad it to the length of a whole one?


def extracting(extractor: Any) -> Extract:
    """The model's own feature extractor on one clip alone: no other clip is padded to, or from."""
    rate, name = extractor.sampling_rate, extractor.model_input_names[0]

    def extract(waveform: Tensor) -> Tensor:
        made = extractor(waveform.cpu().numpy(), sampling_rate=rate, return_tensors="pt")
        features: Tensor = made[name][0].float()
        mask = made.get("attention_mask")
        if mask is not None and len(features) == mask.shape[1]:
            features = features[: int(mask.sum())]  # Parakeet: a frame beyond the audio, masked out
        return features.to(waveform.device)

    return extract


def window_samples(extractor: Any, extract: Extract, num_samples: int) -> int | None:
    """The longest clip that the extractor takes whole; None where ``num_samples`` are not too many.

    Some say it; others are asked whether the end of a clip still changes their features.
    """
    for name in ("n_samples", "nb_max_samples"):  # Whisper, CLAP (which crops at random beyond it)
        if hasattr(extractor, name):
            return int(getattr(extractor, name))
    if _reads_the_end(extract, num_samples):
        return None
    shorter, longer = 1, num_samples
    while longer - shorter > 1:
        middle = (shorter + longer) // 2
        shorter, longer = (middle, longer) if _reads_the_end(extract, middle) else (shorter, middle)
    return shorter


def require_whole(name: str, extractor: Any, extract: Extract, num_samples: int) -> None:
    """Raise InputError where an extractor would cut a clip of so many samples."""
    rate = extractor.sampling_rate
    longest = window_samples(extractor, extract, num_samples)
    if longest is not None and num_samples > longest:
        raise InputError(
            f"{name} takes clips of up to {math.floor(longest / rate * 100) / 100:g} s, not of "
            f"{num_samples / rate:g} s; give fewer seconds, and split longer clips into windows",
            options=("clip_seconds", "window_seconds"),
        )


def _reads_the_end(extract: Extract, num_samples: int) -> bool:
    sound = 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    other = sound.clone()
    other[-max(1, num_samples // 100) :] = 0.0
    try:
        return not torch.equal(extract(sound), extract(other))
    except Exception:  # shorter than a frame: extractors raise whatever their code does
        return True


class Lengths:
    """Time columns of a clip of so many samples; of one padded to a window, those that begin within it.

    Args:
        empty: the audio encoder without memory (on the meta device)
        columns_of: features' shape to time columns of the encoder's output, measured on ``empty``
        num_samples: of a whole clip
        per_column: [samples] between columns of an extractor that pads to a window
    """

    def __init__(
        self,
        empty: Any,
        extract: Extract,
        columns_of: Callable[[torch.Size], int],
        *,
        num_samples: int,
        per_column: Callable[[int], float],
    ) -> None:
        full = extract(torch.zeros(num_samples))
        self.padded = extract(torch.zeros(round(_SHORTER * num_samples))).shape == full.shape
        self._empty, self._extract, self._columns_of = empty, extract, columns_of
        self._raw = full.ndim == 1
        if self.padded:
            self._window = columns_of(full.shape)
            self._per_column = per_column(self._window)
        self.of = lru_cache(maxsize=4096)(self._count)

    def _count(self, num_samples: int) -> int:
        if self.padded:
            return min(self._window, math.ceil(num_samples / self._per_column))
        rule = getattr(self._empty, "_get_feat_extract_output_lengths", None)
        squeeze = getattr(self._empty.config, "squeeze_factor", 1)  # SEW: what is left over becomes zeros
        try:
            if self._raw and rule is not None:
                return max(0, int(rule(num_samples))) // squeeze * squeeze
            return self._columns_of(self._extract(torch.zeros(num_samples)).shape)
        except Exception:  # shorter than a frame or a kernel: models raise whatever their code does
            return 0

    def shortest(self, num_samples: int) -> int:
        """The fewest samples that give a column; ``num_samples`` give some."""
        none, some = 0, 1
        while some < num_samples and not self._is_enough(some):  # short clips are quick to ask about
            none, some = some, min(2 * some, num_samples)
        while some - none > 1:
            middle = (none + some) // 2
            none, some = (none, middle) if self._is_enough(middle) else (middle, some)
        return some

    def _is_enough(self, num_samples: int) -> bool:
        try:
            self._extract(torch.zeros(num_samples))
        except Exception:  # as above
            return False
        return self.of(num_samples) > 0
