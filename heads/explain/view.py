"""A head and its clips, prepared once for all sections of a page."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.errors import InputError, unknown
from featcache.heads.explain.media import picture, shades, sound, sound_of, spectrogram
from featcache.heads.explain.prototypes import Matches, matches
from featcache.heads.explain.subject import Clips, Subject
from featcache.heads.explain.tokenmaps import activation, as_grid, attention, evidence_of, kind_of_map
from featcache.heads.prototypical import Proto, ProtoFloat
from featcache.manifest import Clip

FRAMES_A_SECOND = 100
PICTURE_ROWS = 64  # pixels of a spectrogram, from 128 mel bands
OPACITY = np.array([0, *np.linspace(40, 225, 31)], dtype=np.uint8)


class View:
    """What the sections of a page ask.

    Args:
        clips, patches, classes: as ``page.explain``
    """

    def __init__(
        self, subject: Subject, *, clips: int, patches: int, classes: Sequence[str] | None = None
    ) -> None:
        self.subject, self.patches, self.num_clips = subject, patches, clips
        self.kind = kind_of_map(subject.head)
        self.name = str(subject.head.config["name"])
        self.clips = subject.clips
        self._waveforms: dict[int, NDArray[np.float32] | None] = {}
        for name in classes or ():
            if name not in subject.classes:
                raise unknown("class", name, subject.classes, options=("classes",))
        self.shown = [number for number, own in enumerate(subject.classes) if not classes or own in classes]
        if self.clips and subject.head.config["dim"] != self.clips.cache.dim:
            raise InputError(
                f"the head takes tokens of width {subject.head.config['dim']}, the cache has others"
            )

    def facts(self) -> list[list[str]]:
        """Name and value of what a reader should know first."""
        config = self.subject.config
        score = (config.get("test") or config.get("valid") or {}).get(config.get("metric"))
        own = [
            ["head", self.name],
            ["encoder", str(config.get("encoder", "unknown"))],
            ["data set", str(config.get("dataset", "unknown"))],
            ["classes", str(len(self.subject.classes))],
        ]
        if isinstance(score, float):
            split = "test" if config.get("test") else "valid"
            own.append([f"{split} {config['metric']}", f"{100 * score:.1f} %"])
        return own

    @property
    def head(self) -> ProtoFloat | Proto:
        """The head, where it is one of prototypes."""
        return cast(ProtoFloat | Proto, self.subject.head)

    @property
    def known(self) -> Clips:
        """The clips, where there are any."""
        assert self.clips is not None
        return self.clips

    @cached_property
    def train(self) -> Matches:
        """Winners in the train clips."""
        return matches(self.head, self.known, self.known.train.rows.tolist())

    @cached_property
    def test(self) -> Matches:
        """Winners in the test clips."""
        return matches(self.head, self.known, self.known.test.rows.tolist())

    @cached_property
    def usual(self) -> Tensor:
        """Each prototype's mean score on train clips, (P,)."""
        return self.train.scores.mean(dim=0)

    @cached_property
    def logits(self) -> Tensor:
        """Of all test clips, (n, C)."""
        rows = self.known.test.rows.tolist()
        if self.kind == "prototypes":
            with torch.inference_mode():
                return self.head.logits_from_scores(self.test.scores)
        return torch.cat([self._logits(rows[first : first + 64]) for first in range(0, len(rows), 64)])

    @torch.inference_mode()
    def _logits(self, rows: list[int]) -> Tensor:
        cache, layer = self.known.cache, self.known.layer
        reads, cls = self.subject.head.reads, cache.cls(rows, layer)
        if reads == "tokens":
            tokens = cache.tokens(rows, layer).float()
            return cast(Tensor, self.subject.head(tokens, None, cache.mask(rows)))
        vector = cls if cls is not None and reads == "cls" else cache.mean(rows, layer)
        return cast(Tensor, self.subject.head(None, vector, None))

    def maps(self, number: int) -> Tensor:
        """Of a test clip by its number: (C, F, T), or (1, F, T) where a map is for all classes."""
        cache, row = self.known.cache, [int(self.known.test.rows[number])]
        if self.kind == "prototypes":
            return evidence_of(
                self.head, self.test.scores[number], self.test.index[number], self.usual, cache.grid
            )
        tokens, valid = cache.tokens(row, self.known.layer), cache.mask(row)
        if self.kind == "attention":
            return as_grid(attention(self.subject.head, tokens, valid), cache.grid)
        return as_grid(activation(self.subject.head, tokens, valid)[0], cache.grid)

    def waveform(self, row: int) -> NDArray[np.float32] | None:
        """The sound of a clip by its row in the cache; decoded once."""
        if row not in self._waveforms:
            self._waveforms[row] = sound_of(self.known.by_row[row], self.known.sample_rate)
        return self._waveforms[row]

    def clip(self, row: int) -> Clip:
        """The clip in a row of the cache."""
        return self.known.by_row[row]

    def media(
        self, row: int, start: float = 0.0, end: float | None = None, colours: str = "magma"
    ) -> dict[str, Any]:
        """Picture and sound of a part of a clip; empty where its audio is not here."""
        waveform, rate = self.waveform(row), self.known.sample_rate
        if waveform is None:
            return {}
        levels = shades(spectrogram(waveform, rate))
        stop = len(waveform) / rate if end is None else end
        cut = waveform[round(start * rate) : round(stop * rate)]
        if not len(cut):  # the patch lies in padding
            return {}
        frames = levels[round(start * FRAMES_A_SECOND) : max(1, round(stop * FRAMES_A_SECOND))]
        rows = frames.T[::-1]  # high frequencies on top
        half = rows[: len(rows) // 2 * 2].reshape(PICTURE_ROWS, -1, rows.shape[1]).max(axis=1)
        return {"spectrogram": picture(half, colours=colours), "sound": sound(cut, rate)}

    def heat(self, values: Tensor, largest: float) -> str:
        """A map (F, T) as a picture to lay over a spectrogram; high frequencies on top."""
        levels = np.clip(values.numpy()[::-1] / max(largest, 1e-9), 0, 1) * 31
        return picture(np.rint(levels).astype(np.uint8), OPACITY, "autumn")

    def place(self, token: int) -> tuple[float, float, float, float]:
        """Of a time-major token: onset and offset [s], lowest and highest frequency [Hz].

        Frequencies take the encoder's rows for equal parts of the mel scale from 20 Hz to half its rate.
        """
        F, _ = self.known.cache.grid
        step, top = self.known.column_seconds, _mel(self.known.sample_rate / 2)
        low, column, row = _mel(20.0), token // F, token % F
        edges = [_hertz(low + (top - low) * (row + more) / F) for more in (0, 1)]
        return column * step, (column + 1) * step, edges[0], edges[1]


def _mel(hertz: float) -> float:
    return float(1127.0 * np.log1p(hertz / 700.0))


def _hertz(mel: float) -> float:
    return float(700.0 * np.expm1(mel / 1127.0))
