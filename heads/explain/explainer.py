"""What a trained prototype head found in soundscapes whose events are known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.audio.fbank import LOG_FLOOR, KaldiFbank
from featcache.audio.load import load_clip
from featcache.heads.checkpoint import load, load_config
from featcache.heads.explain.localise import evidence, points_into, usual_scores
from featcache.heads.explain.picture import Row, draw
from featcache.heads.prototypical import ProtoFloat
from featcache.heads.report.results import Result
from featcache.manifest.events import Event

if TYPE_CHECKING:
    from featcache.cache import TokenCache

FRAME_SECONDS = 0.01  # [s] of the Kaldi filter bank


class Explainer:
    """The test clips of one result, seen through its head.

    Args:
        cache: with clip ids as in the manifest that was probed
        events: clip id -> its events, as ``featcache.manifest.events`` reads them; those of classes
            that the head does not know are passed over
        train: ids of training clips, against whose average evidence is measured
        column_seconds: [s] between token columns
    """

    def __init__(
        self,
        result: Result,
        cache: "TokenCache",
        events: Mapping[str, Sequence[Event]],
        train: Sequence[str],
        column_seconds: float,
    ) -> None:
        self.cache, self.events, self.column_seconds = cache, events, column_seconds
        self.head = cast(ProtoFloat, load(result.file("head")))
        self.classes: list[str] = load_config(result.file("head"))["class_names"]
        ids, logits, targets = result.scores()
        self.logits = dict(zip(ids, logits, strict=True))
        self.targets: dict[str, NDArray[np.uint8]] = dict(zip(ids, targets, strict=True))  # (C,)
        self._rows = {clip: row for row, clip in enumerate(cache.ids)}
        self._usual = usual_scores(self.head, cache, [self._rows[clip] for clip in train])

    def maps(self, clip: str) -> Tensor:
        """Evidence for every class, (C, F, T)."""
        return evidence(self.head, self.cache, self._rows[clip], self._usual)

    def pointed(self, clip: str) -> list[tuple[bool, float]]:
        """``points_into`` for each event of a clip."""
        maps = self.maps(clip)
        return [
            points_into(maps[self.classes.index(event.label)], event.start, event.end, self.column_seconds)
            for event in self._known(clip)
        ]

    def pointing(self) -> tuple[float, float]:
        """Over all events of the test clips: the share that was pointed at, and by chance."""
        pairs = [pair for clip in self.targets for pair in self.pointed(clip)]
        share, chance = np.mean(pairs, axis=0)
        return float(share), float(chance)

    def clearest(self, num_events: int) -> str:
        """The test clip of so many events of which most were found: pointed at, and ranked on top.

        Where no clip has so many, of the most there are; between equals, by how far the true classes
        are ranked above the others.
        """
        most = min(num_events, max(int(own.sum()) for own in self.targets.values()))
        clips = [clip for clip, own in self.targets.items() if own.sum() == most]
        return max(clips, key=lambda clip: (self._found(clip), self._margin(clip)))

    def picture(self, path: Path, clip: str, audio: Path) -> None:
        """Draw the classes ranked highest, as many as there are true ones, and those that were missed."""
        fbank = KaldiFbank(sample_rate=16_000)
        waveform = load_clip(audio, sample_rate=fbank.sample_rate).waveform
        log_mel = fbank([waveform])[0].numpy()
        frames = round(self.cache.grid[1] * self.column_seconds / FRAME_SECONDS)
        padding = ((0, max(0, frames - len(log_mel))), (0, 0))
        draw(
            path,
            self._picture_rows(clip),
            log_mel=np.pad(log_mel, padding, constant_values=LOG_FLOOR)[:frames],
            seconds=len(waveform) / fbank.sample_rate,
            frame_seconds=FRAME_SECONDS,
            title="Spectrogram, and where the binarized prototypes found each class (boxes: true events)",
        )

    def _picture_rows(self, clip: str) -> list[Row]:
        order = np.argsort(-self.logits[clip])
        present = self.targets[clip].astype(bool)
        maps = self.maps(clip).numpy()
        return [
            self._row(clip, int(number), rank, maps[number])
            for rank, number in enumerate(order, 1)
            if rank <= present.sum() or present[number]
        ]

    def _row(self, clip: str, number: int, rank: int, own: NDArray[np.floating[Any]]) -> Row:
        label = self.classes[number]
        times = [(event.start, event.end) for event in self._known(clip) if event.label == label]
        note = f"ranked {rank} of {len(self.classes)}" + ("" if times else ", not in this soundscape")
        return Row(label=label, note=note, evidence=own, events=times)

    def _known(self, clip: str) -> list[Event]:
        """Its events of classes that the head knows; a clip may have none."""
        return [event for event in self.events.get(clip, ()) if event.label in self.classes]

    def _found(self, clip: str) -> int:
        """Events that were pointed at and whose class is among as many on top as there are true ones."""
        top = np.argsort(-self.logits[clip])[: int(self.targets[clip].sum())]
        labels = {self.classes[number] for number in top}
        return sum(
            hit and event.label in labels
            for event, (hit, _) in zip(self._known(clip), self.pointed(clip), strict=True)
        )

    def _margin(self, clip: str) -> float:
        """How far the worst-ranked true class is above the best-ranked other one, in logits."""
        present = self.targets[clip].astype(bool)
        logits = torch.from_numpy(self.logits[clip])
        return float(logits[present].min() - logits[~present].max())
