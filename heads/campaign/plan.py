"""What a study will do: what is there, what is to be done, and what is missing."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from featcache.cache.format.dtypes import store_dtype
from featcache.cache.survey import describe
from featcache.datasets.prepare import named_source
from featcache.datasets.table import dataset_spec
from featcache.encoders import encoder_spec
from featcache.errors import FeatcacheError, MissingError
from featcache.extraction.layers import parse_layers
from featcache.heads.campaign.sources import StudySource, source_of
from featcache.heads.campaign.steps import extract_key, extracted, probe_key, probed
from featcache.heads.campaign.study import StudyCell, StudyDataset, StudyEncoder, StudyFile
from featcache.output import writable
from featcache.weights.known import known_checkpoints

State = Literal["done", "to probe", "to extract", "missing"]


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A cell, and how far it is."""

    cell: StudyCell
    state: State
    clips: int = 0  # of its manifest
    hours: float = 0.0  # [h] of audio
    num_bytes: int | None = None  # of its cache; None where that is not known beforehand
    estimated: bool = True  # before the cache is there


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """All of a study's cells, or those asked for."""

    cells: tuple[PlannedCell, ...]
    missing: dict[str, str]  # what -> the line that gets it
    notes: tuple[str, ...] = ()  # of data sets
    sources: dict[str, StudySource] = field(default_factory=dict)  # of those that are there

    def of(self, *states: State) -> list[PlannedCell]:
        return [own for own in self.cells if own.state in states]


def plan_study(study: StudyFile, cells: Sequence[StudyCell], *, progress: bool = False) -> StudyPlan:
    """Look at what is there: data sets are read into manifests, and nothing else is written.

    Raises:
        InputError: the results' folder cannot be written.
    """
    writable(study.results)
    missing: dict[str, str] = {}
    notes: list[str] = []
    sources: dict[str, StudySource] = {}
    datasets = {cell.dataset.name: cell.dataset for cell in cells}.values()
    for dataset in tqdm(datasets, desc="data sets", disable=None if progress else True, leave=False):
        try:
            source = sources[dataset.name] = source_of(study, dataset)
        except FeatcacheError as error:
            missing[f"data set {dataset.name}"] = f"{error}{_where_data(dataset, error)}"
            continue
        notes += [f"{dataset.name}: {note}" for note in (*source.manifest.notes, *source.problems)]
        if source.short:
            notes.append(f"{dataset.name}: {source.short} classes have fewer train clips than the shots")
    lacking = {}
    for encoder in {cell.encoder.name: cell.encoder for cell in cells}.values():
        if line := weights_missing(encoder):
            lacking[encoder.name] = line
    planned = [
        _planned(study, cell, sources.get(cell.dataset.name), cell.encoder.name in lacking) for cell in cells
    ]
    for own in planned:
        if own.state == "missing" and (line := lacking.get(own.cell.encoder.name)):
            missing[f"encoder {own.cell.encoder.name}"] = line
    return StudyPlan(cells=tuple(planned), missing=missing, notes=tuple(notes), sources=sources)


def _planned(study: StudyFile, cell: StudyCell, source: StudySource | None, no_weights: bool) -> PlannedCell:
    if source is None:
        return PlannedCell(cell=cell, state="missing")
    key = extract_key(cell, source.manifest.digest)
    if probed(cell, probe_key(cell, study.heads, key)) is not None:
        state: State = "done"
    elif extracted(cell, key) is not None:
        state = "to probe"
    else:
        state = "missing" if no_weights else "to extract"
    there = _bytes_there(cell.cache) if state in ("done", "to probe") else None
    clips = len(source.manifest)
    size = clip_bytes(cell)
    train = sum(clip.split == "train" for clip in source.manifest)
    guess = None if size is None else size * (clips + cell.extract.get("variants", 0) * train)
    return PlannedCell(
        cell=cell, state=state, clips=clips, hours=source.hours,
        num_bytes=guess if there is None else there, estimated=there is None,
    )  # fmt: skip


def _bytes_there(cache: Path) -> int | None:
    try:
        return int(describe(cache)["bytes"])
    except FeatcacheError:
        return None


def clip_bytes(cell: StudyCell) -> int | None:
    """What the tokens of one clip take [bytes], by the encoder's spec; None where only building it tells."""
    if cell.encoder.encoder.startswith("hf:") or "window_seconds" in cell.extract:
        return None
    try:
        spec = encoder_spec(cell.encoder.encoder)
        layers = parse_layers(cell.extract.get("layers"), spec.depth)
    except FeatcacheError:
        return None
    rows, columns = spec.grid
    seconds = cell.extract.get("clip_seconds", spec.clip_seconds)
    tokens = rows * math.ceil(columns * seconds / spec.clip_seconds)
    kept = store_dtype(cell.extract.get("store_dtype", "float16"))
    return int(len(layers) * tokens * (spec.dim * kept.bits // 8 + 4 * kept.scaled))


def weights_missing(encoder: StudyEncoder) -> str | None:
    """What to do where an encoder's weights are not here and cannot be fetched by their address."""
    if encoder.encoder.startswith(("hf:", "timm:")):
        return None
    try:
        spec = encoder_spec(encoder.encoder)
    except FeatcacheError as error:
        return str(error)
    weights = encoder.weights or spec.weights
    if weights is None:
        return f"it needs weights: {get_weights(encoder)}" if spec.needs_weights else None
    remote = weights.startswith(("hf-hub:", "http://", "https://"))
    if remote or Path(weights).is_file():
        return None
    return f"no weights at {weights}: {get_weights(encoder)}"


def get_weights(encoder: StudyEncoder) -> str:
    """Where an encoder's weights are, and the line of the study that names them."""
    known = known_checkpoints(encoder.encoder)
    pages = [f"get {own.name} ({own.trained}) from {own.address}" for own in known if not own.loads]
    pages += [] if known else [f"get them from their authors ('featcache encoders {encoder.encoder}')"]
    ways = [f"{' or '.join(pages)}, and write {weights_line(encoder, encoder.weights)}"] if pages else []
    ways += [f"write {weights_line(encoder, own.address)} ({own.trained})" for own in known if own.loads]
    return "; or ".join(ways)


def weights_line(encoder: StudyEncoder, place: str | None = None) -> str:
    """The line of the study that says where weights are.

    >>> weights_line(StudyEncoder(name="eat+", encoder="eat"))
    'weights = "PATH" under [encoders."eat+"]'
    """
    name = encoder.name if re.fullmatch(r"[\w-]+", encoder.name) else f'"{encoder.name}"'
    return f'weights = "{place or "PATH"}" under [encoders.{name}]'


def _where_data(dataset: StudyDataset, error: FeatcacheError) -> str:
    named = named_source(dataset.source) if isinstance(error, MissingError) else None
    return f"; get it: {dataset_spec(named[0]).origin}" if named else ""
