"""AudioSet: segments of YouTube videos; the audio is whatever its owner could still download."""

import re
from pathlib import Path

from featcache.datasets.hub import HubTable
from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.datasets.youtube import ID, youtube_id
from featcache.errors import InputError
from featcache.manifest import Clip
from featcache.manifest.events import Event, make_event
from featcache.manifest.table import read_table

SEGMENTS = ("YTID", "start_seconds", "end_seconds", "positive_labels")
STRONG = ("segment_id", "start_time_seconds", "end_time_seconds", "label")


def read_balanced(root: Root) -> Listing:
    """Balanced train segments and the evaluation segments."""
    return _read(root, {"train": ("balanced_train_segments",), "test": ("eval_segments",)})


def read_full(root: Root) -> Listing:
    """Balanced and unbalanced train segments together, and the evaluation segments."""
    train = ("balanced_train_segments", "unbalanced_train_segments")
    return _read(root, {"train": train, "test": ("eval_segments",)})


def _read(root: Root, lists: dict[str, tuple[str, ...]]) -> Listing:
    vocabulary = root.find("class_labels_indices.csv")
    names = {row["mid"]: row["display_name"] for _, row in read_table(vocabulary, ("mid", "display_name"))[0]}
    files: dict[str, Path] = {}
    for stem, path in AudioFiles(root.path, by_name=True).files.items():
        id = youtube_id(stem)
        if id:
            files.setdefault(id, path)
    listing = Listing(clips=[], classes=tuple(names.values()))
    for split, stems in lists.items():
        for stem in stems if root.wants(split) else ():
            table = root.find(f"{stem}.csv")
            clips = _clips(table, split, names, files)
            listing.clips += clips
            listing.problems += _short_list(table, len(clips))
    listing.events = _strong(root, names, {clip.id for clip in listing.clips})
    return listing


def _clips(table: Path, split: str, names: dict[str, str], files: dict[str, Path]) -> list[Clip]:
    clips = []
    for line, row in read_table(table, SEGMENTS, names=SEGMENTS, comment="# ")[0]:
        id, mids = row["YTID"], [mid.strip() for mid in row["positive_labels"].split(",")]
        unknown = [mid for mid in mids if mid not in names]
        if unknown:
            raise InputError(f"{table} line {line}: {unknown[0]!r} is no class of class_labels_indices.csv")
        make_event(f"{table} line {line}", id, row["start_seconds"], row["end_seconds"], "segment")
        path = files.get(id, table.parent / table.stem / f"{id}.wav")
        clips.append(Clip(id=id, path=path, labels=tuple(names[mid] for mid in mids), split=split))
    return clips


def _short_list(table: Path, rows: int) -> list[str]:
    """What is wrong if a list has other rows than its second line says."""
    with table.open(encoding="utf-8-sig") as file:
        said = re.search(r"num_segs=(\d+)", file.readline() + file.readline())
    if said and int(said[1]) != rows:
        return [f"{table} says that it lists {int(said[1]):,} segments and lists {rows:,}"]
    return []


def _strong(root: Root, names: dict[str, str], ids: set[str]) -> list[Event]:
    """Events of the temporally strong labels, where they are there."""
    spelt = dict(names)
    if own := root.look("mid_to_display_name.tsv"):
        columns = ("mid", "display_name")
        spelt |= {row["mid"]: row["display_name"] for _, row in read_table(own, columns, names=columns)[0]}
    return [
        make_event(f"{table} line {line}", id, start, end, spelt.get(mid, mid))
        for table in map(root.look, ("audioset_train_strong.tsv", "audioset_eval_strong.tsv"))
        if table
        for line, (segment, start, end, mid) in (
            (number, [row[name] for name in STRONG]) for number, row in read_table(table, STRONG)[0]
        )
        if (id := segment[:ID]) in ids
    ]


_FACTS = {
    "multilabel": True,
    "metric": "mAP",
    "classes": 527,
    "audio": "44.1 or 48 kHz as downloaded, up to 10 s",
    "licence": "labels CC BY 4.0; the audio is YouTube's",
    "citation": "Gemmeke et al., Audio Set, ICASSP 2017, https://doi.org/10.1109/ICASSP.2017.7952261",
    "hub": HubTable(
        columns=("human_labels",),
        labels=lambda row: tuple(row["human_labels"]),
        id="video_id",
        splits={"bal_train": "train"},
    ),
    "strong": "audioset_train_strong.tsv and audioset_eval_strong.tsv, where they are there",
}
_NOTE = (
    "Segments whose video is gone have no file (a tenth to a sixth of them), so `allow_missing` is usual. "
    "Files are known by the YouTube id in their names. A few recordings are in train and test at once "
    "(the check names them)."
)
AS20K = DatasetSpec(
    name="as20k",
    title="AudioSet, balanced",
    read=read_balanced,
    sizes={"train": 22_160, "test": 20_371},
    origin=(
        "https://research.google.com/audioset/download.html; audio also from "
        "hf.co/datasets/agkphysics/AudioSet"
    ),
    layout="class_labels_indices.csv, balanced_train_segments.csv, eval_segments.csv; audio at any depth",
    note=_NOTE,
    **_FACTS,  # type: ignore[arg-type]
)
AS2M = DatasetSpec(
    name="as2m",
    title="AudioSet, balanced and unbalanced",
    read=read_full,
    sizes={"train": 22_160 + 2_041_789, "test": 20_371},
    origin=AS20K.origin,
    layout="as for as20k, and unbalanced_train_segments.csv",
    note=f"{_NOTE} The number of unbalanced segments is the usual one, not checked with the file.",
    **_FACTS,  # type: ignore[arg-type]
)
