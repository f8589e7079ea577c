"""DESED: domestic sounds, weakly labelled for training, with event times for validation and test."""

from pathlib import Path

from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root, plain
from featcache.datasets.spec import DatasetSpec
from featcache.datasets.youtube import segment_key
from featcache.manifest import Clip
from featcache.manifest.events import Event, make_event
from featcache.manifest.table import read_table

CLASSES = (
    "Alarm_bell_ringing", "Blender", "Cat", "Dishes", "Dog", "Electric_shaver_toothbrush", "Frying",
    "Running_water", "Speech", "Vacuum_cleaner",
)  # fmt: skip
WEAK = ("filename", "event_labels")
STRONG = ("filename", "onset", "offset", "event_label")


def read(root: Root) -> Listing:
    """Weak clips as train, validation as valid, the public evaluation set as test."""
    listing = Listing(clips=[], classes=CLASSES)
    if root.wants("train"):
        table = root.find("metadata/train/weak.tsv")
        place = _places(table, "train/weak")
        for _, row in read_table(table, WEAK)[0]:
            labels = tuple(label.strip() for label in row["event_labels"].split(","))
            listing.clips.append(_clip(row["filename"], place, labels, "train"))
    for split, name in (("valid", "validation/validation"), ("test", "eval/public")):
        if root.wants(split):
            table = root.find(f"metadata/{name}.tsv")
            audio = name if split == "test" else "validation"
            _read_strong(table, split, _places(table, audio), listing)
    return listing


def _read_strong(table: Path, split: str, place: "Places", listing: Listing) -> None:
    """One row an event; a row without one is a clip in which nothing of the ten sounds."""
    events: dict[str, list[Event]] = {}
    for line, row in read_table(table, STRONG)[0]:
        own = events.setdefault(row["filename"], [])
        if any(row[name] for name in STRONG[1:]):
            where, id = f"{table} line {line}", plain(row["filename"])
            own.append(make_event(where, id, row["onset"], row["offset"], row["event_label"]))
    for name, own in events.items():
        labels = tuple(sorted({event.label for event in own}))
        listing.clips.append(_clip(name, place, labels, split))
        listing.events += own


class Places:
    """Where files of a list are: those on disk may have the ``Y`` or the decimals that the list has not."""

    def __init__(self, folder: Path) -> None:
        self.files = AudioFiles(folder, by_name=True)
        self.segments = {segment_key(name): path for name, path in self.files.files.items()}

    def place(self, name: str) -> Path:
        """The file of a list's name, or where it would be."""
        key = plain(name)
        other = None if key in self.files.files else self.segments.get(segment_key(key))
        return other or self.files.place(name)


def _places(table: Path, audio: str) -> Places:
    top = next(parent for parent in table.parents if parent.name == "metadata").parent
    return Places(top / "audio" / audio)


def _clip(name: str, place: Places, labels: tuple[str, ...], split: str) -> Clip:
    return Clip(id=plain(name), path=place.place(name), labels=labels, split=split)


DESED = DatasetSpec(
    name="desed",
    title="DESED",
    read=read,
    classes=10,
    sizes={"train": 1_578, "valid": 1_168, "test": 692},
    multilabel=True,
    metric="mAP of clip labels",
    audio="10 s",
    licence="per archive; public evaluation CC BY 4.0",
    origin="https://github.com/turpaultn/DESED; public evaluation https://zenodo.org/records/4560759",
    layout="metadata/{train/weak,validation/validation,eval/public}.tsv and the same folders below audio/",
    citation="Turpault et al., DCASE 2019, https://hal.inria.fr/hal-02160855; Serizel et al., ICASSP 2020",
    strong="valid and test",
    note=(
        "DESED proper. What the paper calls `desed` has 20,000 train clips, which DESED has not: it is "
        "very probably IDMT-DESED-FL (`idmt-desed-fl`). Synthetic and unlabelled clips are not read. Clips "
        "without an event stay, without labels; events are cut at the end of their clip."
    ),
)
