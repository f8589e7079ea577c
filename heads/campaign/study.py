"""What a study is: encoders and data sets, and a cell for each pair of them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featcache.errors import InputError, unknown

Options = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudyEncoder:
    """An encoder of a study."""

    name: str  # in tables and folders
    encoder: str  # as ``extract`` takes it
    weights: str | None = None
    options: Options = field(default_factory=dict)  # of the encoder itself
    extract: Options = field(default_factory=dict)
    probe: Options = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudyDataset:
    """A data set of a study."""

    name: str  # in tables and folders
    source: str  # NAME:ROOT, a manifest, or a folder of class folders
    splits: tuple[str, ...] = ()  # all if empty
    allow_missing: bool = False
    fewshot: Options = field(default_factory=dict)  # shots, seed, max_seconds; none: all train clips
    extract: Options = field(default_factory=dict)
    probe: Options = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudyCell:
    """One encoder on one data set: what is extracted and probed at once."""

    encoder: StudyEncoder
    dataset: StudyDataset
    cache: Path
    results: Path  # a folder of its own, so that cells may run side by side
    extract: Options  # the study's, then the encoder's, then the data set's
    probe: Options

    @property
    def title(self) -> str:
        return f"{self.encoder.name} on {self.dataset.name}"


@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """Encoders x data sets x heads under one protocol."""

    name: str
    path: Path  # the file
    caches: Path
    results: Path
    heads: tuple[str, ...]
    encoders: tuple[StudyEncoder, ...]
    datasets: tuple[StudyDataset, ...]
    reference: str | None = None  # a paper whose numbers stand beside ours
    extract: Options = field(default_factory=dict)
    probe: Options = field(default_factory=dict)
    slurm: Options = field(default_factory=dict)  # options of sbatch

    def cells(self, only: Collection[str] = ()) -> list[StudyCell]:
        """The cells, data set by data set.

        Args:
            only: ``encoder=NAME`` and ``dataset=NAME``; several of one kind add up

        Raises:
            InputError: a name that the study does not have.
        """
        wanted = self._wanted(only)
        return [
            self._cell(encoder, dataset)
            for dataset in self.datasets
            for encoder in self.encoders
            if encoder.name in wanted["encoder"] and dataset.name in wanted["dataset"]
        ]

    def _cell(self, encoder: StudyEncoder, dataset: StudyDataset) -> StudyCell:
        return StudyCell(
            encoder=encoder,
            dataset=dataset,
            cache=self.caches / encoder.name / f"{dataset.name}.zarr",
            results=self.results / "cells" / encoder.name / dataset.name,
            extract={**self.extract, **encoder.extract, **dataset.extract},
            probe={**self.probe, **encoder.probe, **dataset.probe},
        )

    def _wanted(self, only: Collection[str]) -> dict[str, list[str]]:
        known = {
            "encoder": [own.name for own in self.encoders],
            "dataset": [own.name for own in self.datasets],
        }
        named: dict[str, list[str]] = {kind: [] for kind in known}
        for text in only:
            kind, equals, name = text.partition("=")
            if kind not in known or not equals:
                raise InputError(f"only {text!r} not understood; wanted encoder=NAME or dataset=NAME")
            if name not in known[kind]:
                raise unknown(f"{kind} of {self.path}", name, known[kind])
            named[kind].append(name)
        return {kind: named[kind] or every for kind, every in known.items()}
