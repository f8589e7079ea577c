"""A data set of a study as a manifest, written once beside the results and read from there."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from featcache.audio.load import duration
from featcache.cache.format.durable import replace_file
from featcache.datasets.prepare import named_source, prepare
from featcache.errors import AudioError
from featcache.files import read_json
from featcache.heads.campaign.study import StudyDataset, StudyFile
from featcache.heads.report.results import digest_of
from featcache.manifest import Manifest, load_manifest, write_manifest
from featcache.manifest.events import Event, events_file, read_events, write_events_beside
from featcache.manifest.fewshot import few_shot
from featcache.output import keeping


@dataclass(frozen=True, kw_only=True)
class StudySource:
    """A manifest that is there, and what is known of its audio."""

    manifest: Manifest
    hours: float  # [h] of its clips together
    problems: tuple[str, ...] = ()  # what is not whole of it
    short: int = 0  # classes with fewer clips than the shots ask for


def source_of(study: StudyFile, dataset: StudyDataset) -> StudySource:
    """The clips of a data set, in the file that probes name it by.

    A data set that was read whole is not read again: its audio may go once it is extracted. One that was
    not, or whose entry in the study has changed, is.

    Raises:
        MissingError: its files are not there.
        InputError: they are not what they should be.
    """
    named, before = named_source(dataset.source), kept_source(study, dataset)
    if before and named and not before.problems:
        return before
    manifest, events, problems = _read(dataset, named)
    short = 0
    if dataset.fewshot:
        drawn = few_shot(manifest, **{"seed": 0, **dataset.fewshot})
        short, ids = len(drawn.short), {clip.id for clip in drawn.clips}
        manifest = replace(manifest, clips=drawn.clips)
        events = [event for event in events if event.id in ids]
    same = before is not None and before.manifest.digest == manifest.digest
    hours = before.hours if before and same else hours_of(manifest)
    found = StudySource(manifest=manifest, hours=hours, problems=tuple(problems), short=short)
    return _keep(study, dataset, found, events)


def kept_source(study: StudyFile, dataset: StudyDataset) -> StudySource | None:
    """A data set as it was read last, if it was under this entry; its own files are not looked at."""
    path = _place(study, dataset)
    try:
        facts = read_json(path.with_suffix(".json"))
        if facts["entry"] != _entry(dataset) or not path.is_file():
            return None
        manifest = load_manifest(path)
        if facts["digest"] != manifest.digest:
            return None
        problems, short = tuple(map(str, facts["problems"])), int(facts["short"])
        return StudySource(manifest=manifest, hours=float(facts["hours"]), problems=problems, short=short)
    except (OSError, ValueError, KeyError, TypeError):  # whatever is not as it was written is read again
        return None


def _keep(study: StudyFile, dataset: StudyDataset, found: StudySource, events: list[Event]) -> StudySource:
    path, facts = _place(study, dataset), asdict(replace(found, manifest=None))  # type: ignore[arg-type]
    with keeping(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(path, found.manifest.clips)
        write_events_beside(path, events)
        written = load_manifest(path)
        facts |= {"entry": _entry(dataset), "digest": written.digest}
        replace_file(path.with_suffix(".json"), json.dumps(facts).encode(), durable=False)
    return replace(found, manifest=replace(written, notes=found.manifest.notes))


def _place(study: StudyFile, dataset: StudyDataset) -> Path:
    return study.results / "manifests" / f"{dataset.name}.csv"


def _entry(dataset: StudyDataset) -> str:
    return digest_of([dataset.source, dataset.splits, dataset.allow_missing, dict(dataset.fewshot)])


def hours_of(manifest: Manifest) -> float:
    """Hours of audio, from the headers of files; one that cannot be read counts as nothing."""
    ends = {path: _end(path) for path in {clip.path for clip in manifest if clip.end is None}}
    seconds = [
        max(0.0, (ends[clip.path] if clip.end is None else clip.end) - clip.start) for clip in manifest
    ]
    return sum(seconds) / 3600


def _end(path: Path) -> float:
    try:
        return duration(path)
    except AudioError:
        return 0.0


def _read(dataset: StudyDataset, named: tuple[str, str] | None) -> tuple[Manifest, list[Event], list[str]]:
    if named:
        found = prepare(*named, splits=dataset.splits, allow_missing=dataset.allow_missing)
        return found.manifest, list(found.events), list(found.problems)
    own = load_manifest(dataset.source)
    kept = tuple(clip for clip in own if not dataset.splits or clip.split in dataset.splits)
    beside, ids = events_file(Path(dataset.source)), {clip.id for clip in kept}
    events = [event for one in read_events(beside).values() for event in one] if beside.is_file() else []
    return replace(own, clips=kept), [event for event in events if event.id in ids], []
