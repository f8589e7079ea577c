"""URBAN-SED: urban soundscapes composed with Scaper."""

from pathlib import Path
from typing import Any

from featcache.datasets.hub import HubTable
from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError
from featcache.files import read_json
from featcache.manifest import Clip
from featcache.manifest.events import Event, make_event
from featcache.manifest.table import read_table

CLASSES = (
    "air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling", "gun_shot",
    "jackhammer", "siren", "street_music",
)  # fmt: skip
FOLDERS = {"train": "train", "validate": "valid", "test": "test"}
COLUMNS = ("start", "end", "label")


def read(root: Root) -> Listing:
    """Annotations as text where there are any, else as JAMS; a clip for each of them."""
    listing = Listing(clips=[], classes=CLASSES)
    for folder, split in FOLDERS.items():
        if root.wants(split):
            annotations = root.find(f"annotations/{folder}")
            files = AudioFiles(annotations.parents[1] / "audio" / folder)
            found = {path.stem: path for path in sorted(annotations.glob("*.jams"))}
            found |= {path.stem: path for path in annotations.glob("*.txt")}
            for id, path in sorted(found.items()):
                events = read_text(path) if path.suffix == ".txt" else read_jams(path)
                labels = tuple(sorted({event.label for event in events}))
                listing.clips.append(Clip(id=id, path=files.place(id), labels=labels, split=split))
                listing.events += events
            without = sorted(set(files.files) - set(found))
            if without:
                listing.problems.append(
                    f"{len(without)} files have no annotation, first {files.place(without[0])}"
                )
    return listing


def read_text(path: Path) -> list[Event]:
    """Foreground events: start, end and label in a line, without a header; none in an empty file."""
    if not path.read_text(encoding="utf-8").strip():
        return []
    rows = read_table(path, COLUMNS, names=COLUMNS)[0]
    return [
        make_event(f"{path} line {line}", path.stem, row["start"], row["end"], row["label"])
        for line, row in rows
    ]


def read_jams(path: Path) -> list[Event]:
    """Foreground events, as long as ``duration`` says: ``value.event_duration`` is before time-stretch.

    Raises:
        InputError: this is no JAMS file of Scaper.
    """
    try:
        data: list[dict[str, Any]] = read_json(path)["annotations"][0]["data"]
        return [
            make_event(
                str(path),
                path.stem,
                str(row["time"]),
                str(row["time"] + row["duration"]),
                row["value"]["label"],
            )
            for row in data
            if row["value"]["role"] != "background"
        ]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no JAMS file of Scaper ({type(error).__name__}: {error})") from None


URBAN_SED = DatasetSpec(
    name="urban-sed",
    title="URBAN-SED",
    read=read,
    classes=10,
    sizes={"train": 6_000, "valid": 2_000, "test": 2_000},
    multilabel=True,
    metric="mAP of clip labels",
    audio="44.1 kHz mono, 10 s",
    licence="CC BY 4.0",
    origin="https://zenodo.org/records/1324404 (URBAN-SED_v2.0.0.tar.gz)",
    layout="annotations/{train,validate,test}/*.txt or *.jams, audio/{train,validate,test}/",
    citation="Salamon et al., Scaper, WASPAA 2017, https://doi.org/10.1109/WASPAA.2017.8170052",
    hub=HubTable(),
    strong="all",
    note="Made of UrbanSound8K: an encoder or head that has seen that has seen its sounds.",
)
