"""BEANS: bioacoustic data sets as its own scripts lay them out, but for those that have an adapter here."""

# ruff: noqa: E501  (rows of a table)

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from featcache.datasets.listing import Listing
from featcache.datasets.root import Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError
from featcache.manifest import Clip
from featcache.manifest.clip import seconds_text
from featcache.manifest.events import Event
from featcache.manifest.table import read_table

SPLITS = ("train", "valid", "test")
OVERLAP = 0.2  # of the shorter of window and event: more than this labels a window


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A data set of BEANS, as its datasets.yml has it."""

    title: str
    files: str  # with {} for the split, below the checkout
    classes: int
    audio: str
    window: float = 0.0  # [s], of detection
    hop: float = 0.0  # [s]
    known: tuple[str, ...] = ()  # its classes, where others count as one of them: as the first


def read_classification(root: Root, part: _Part) -> Listing:
    """Tables of ``path,label``; paths are relative to the checkout of BEANS."""
    listing = Listing(clips=[], classes=())
    for split in filter(root.wants, SPLITS):
        table = root.find(part.files.format(split))
        for _, row in read_table(table, ("path", "label"))[0]:
            path = _base(table, part) / row["path"]
            clip = Clip(
                id=f"{split}/{row['path']}", path=path, labels=(_label(row["label"], part),), split=split
            )
            listing.clips.append(clip)
    return _with_classes(listing)


def read_detection(root: Root, part: _Part) -> Listing:
    """Lines of JSON, a recording each, cut into windows that are labelled as BEANS labels them."""
    listing = Listing(clips=[], classes=())
    for split in filter(root.wants, SPLITS):
        table = root.find(part.files.format(split))
        with table.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    _windows(f"{table} line {number}", line, _base(table, part), part, split, listing)
    return _with_classes(listing)


def _windows(where: str, line: str, base: Path, part: _Part, split: str, listing: Listing) -> None:
    try:
        row: dict[str, Any] = json.loads(line)
        path, length = str(row["path"]), float(row["length"])
        calls = [
            (float(own["st"]), float(own["ed"]), _label(str(own["label"]), part))
            for own in row["annotations"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{where} is no recording of BEANS (path, length, annotations of st, ed, label): "
            f"{type(error).__name__} {error}"
        ) from None
    for number in range(int((length - part.window) / part.hop) + 1 if length >= part.window else 0):
        start = number * part.hop
        end = start + part.window
        id = f"{split}/{path}@{seconds_text(start)}-{seconds_text(end)}"
        labels = dict.fromkeys(label for begin, stop, label in calls if labelled(start, end, begin, stop))
        clip = Clip(
            id=id, path=base / path, start=start, end=end, labels=tuple(labels), split=split, group=path
        )
        listing.clips.append(clip)
        for begin, stop, label in calls:
            first, last = max(begin, start), min(stop, end)
            if first < last:
                listing.events.append(
                    Event(id=id, start=round(first - start, 6), end=round(last - start, 6), label=label)
                )


def labelled(start: float, end: float, begin: float, stop: float) -> bool:
    """Whether an event labels a window: it covers it, or overlaps it by more than a fifth of the shorter.

    Source:
        ``RecognitionDataset`` in beans/datasets.py of https://github.com/earthspecies/beans

    >>> labelled(0, 2, 1.9, 3), labelled(0, 2, 1.5, 3), labelled(0, 2, -1, 5)
    (False, True, True)
    """
    if begin <= start and end <= stop:
        return True
    shorter = min(end - start, stop - begin)
    touches = start <= begin <= end or start <= stop <= end
    return touches and shorter > 0 and (min(end, stop) - max(start, begin)) / shorter > OVERLAP


def _label(label: str, part: _Part) -> str:
    """A label; ``;`` stands between labels in a manifest."""
    return part.known[0] if part.known and label not in part.known else label.replace(";", ",")


def _base(table: Path, part: _Part) -> Path:
    return table.parents[len(Path(part.files).parts) - 1]


def _with_classes(listing: Listing) -> Listing:
    listing.classes = tuple(sorted({label for clip in listing.clips for label in clip.labels}))
    return listing


ENABIRDS = (
    "OTHR", "AMCR", "AMGO", "AMRE", "AMRO", "BAWW", "BCCH", "BGGN", "BHCO", "BHVI", "BLJA", "BTNW", "BWWA",
    "CARW", "COYE", "EATO", "HETH", "HOWA", "KEWA", "LOWA", "NOCA", "NOFL", "OVEN", "RBGR", "RBWO", "RCKI",
    "REVI", "SCTA", "SWTH", "TUTI", "WBNU", "WITU", "WOTH", "YBCU",
)  # fmt: skip
_PARTS: Mapping[str, _Part] = {
    "watkins": _Part(title="Watkins marine mammals", files="data/watkins/annotations.{}.csv", classes=31, audio="up to 3 s"),
    "bats": _Part(title="Egyptian fruit bats", files="data/egyptian_fruit_bats/annotations.{}.csv", classes=10, audio="250 kHz, up to 5 s"),
    "cbi": _Part(title="Cornell bird identification", files="data/cbi/annotations.{}.csv", classes=264, audio="the first 10 s"),
    "dogs": _Part(title="dogs, by individual", files="data/dogs/annotations.{}.csv", classes=10, audio="up to 10 s"),
    "humbugdb": _Part(title="HumBugDB mosquitoes", files="data/HumBugDB/data/metadata/{}.csv", classes=14, audio="up to 3 s"),
    "dcase": _Part(title="DCASE 2021 few-shot", files="data/dcase/{}.jsonl", classes=18, audio="windows of 2 s", window=2, hop=1),
    "enabirds": _Part(title="eastern North American birds", files="data/enabirds/{}.jsonl", classes=34, audio="32 kHz, windows of 2 s", window=2, hop=1, known=ENABIRDS),
    "hiceas": _Part(title="HICEAS minke whales", files="data/hiceas/{}.jsonl", classes=1, audio="windows of 10 s", window=10, hop=5),
    "rfcx": _Part(title="RFCx frogs and birds", files="data/rfcx/{}.jsonl", classes=24, audio="48 kHz, windows of 10 s", window=10, hop=5),
    "gibbons": _Part(title="Hainan gibbons", files="data/hainan_gibbons/{}.jsonl", classes=3, audio="9.6 kHz, windows of 4 s", window=4, hop=2, known=("1", "2", "3")),
}  # fmt: skip
BEANS = [
    DatasetSpec(
        name=f"beans-{name}",
        title=f"BEANS: {part.title}",
        read=partial(read_detection if part.window else read_classification, part=part),
        classes=part.classes,
        sizes={},
        multilabel=part.window > 0,
        metric="mAP of windows" if part.window else "accuracy",
        audio=part.audio,
        licence="of each of its sources",
        origin="https://github.com/earthspecies/beans (its scripts fetch and cut; about 300 GB in all)",
        layout=f"{part.files.format('{train,valid,test}')} below the checkout in which its scripts ran",
        citation="Hagiwara et al., BEANS, 2022, https://arxiv.org/abs/2210.12300",
        strong="all, cut into the windows" if part.window else "none",
        note="Sizes are not published where we could read them; classes are those that occur."
        + (f" A label that is none of its classes counts as `{part.known[0]}`." if part.known else ""),
    )
    for name, part in _PARTS.items()
]
