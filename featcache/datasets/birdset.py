"""BirdSet: focal recordings for training, soundscapes in pieces of five seconds for test."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from featcache.audio.load import duration
from featcache.datasets.birdset_events import WINDOW, as_list, largest_cluster, piece, window_start
from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root, plain
from featcache.datasets.spec import DatasetSpec
from featcache.embedded import is_embedded
from featcache.errors import AudioError, InputError
from featcache.files import read_json
from featcache.manifest import Clip
from featcache.manifest.clip import seconds_text
from featcache.manifest.events import Event
from featcache.parquet import read_rows
from featcache.tarball import member_names

TRAIN = ("filepath", "ebird_code", "ebird_code_multilabel", "detected_events", "event_cluster", "length")
TEST = ("filepath", "ebird_code_multilabel")
STRONG = ("filepath", "ebird_code", "start_time", "end_time")


def read(root: Root, name: str) -> Listing:
    """Windows around the events of train recordings, and the test pieces of five seconds."""
    metadata = {part: root.look(f"{name}_metadata_{part}.parquet") for part in ("train", "test", "test_5s")}
    files = _audio(root, name)
    classes = _classes(root, name)
    listing = Listing(clips=[], classes=classes)
    if root.wants("train"):
        table = metadata["train"] or root.find(f"{name}_metadata_train.parquet")
        for row in _in_order(read_rows(table, TRAIN), files):
            listing.clips += _train_clips(row, files)
    if root.wants("test"):
        table = metadata["test_5s"] or root.find(f"{name}_metadata_test_5s.parquet")
        for row in _in_order(read_rows(table, TEST), files):
            listing.clips.append(_test_clip(row, files))
        if metadata["test"]:
            listing.events = _events(metadata["test"], listing.clips)
    if not classes:
        listing.classes = tuple(sorted({label for clip in listing.clips for label in clip.labels}))
        listing.notes.append(
            f"no list of classes (ebird_codes/{name}.json of the BirdSet repository) lies here: "
            "classes are in alphabetical order, and no label was checked"
        )
    return listing


def _audio(root: Root, name: str) -> AudioFiles:
    """The audio: files at any depth beside the metadata; if there is none, what the archives there hold."""
    folder = root.find(f"{name}_metadata_test_5s.parquet", f"{name}_metadata_train.parquet").parent
    audio = AudioFiles(folder, by_name=True)
    if not audio.files:
        for split, part in (("train", "train"), ("test", "test5s"), ("test", "test_5s")):
            for archive in sorted(folder.glob(f"{name}_{part}_shard_*.tar.gz")) if root.wants(split) else ():
                audio.files |= {
                    plain(own): archive / own for own in member_names(archive) if plain(own) != own
                }
    return audio


def _in_order(rows: Iterable[Mapping[str, Any]], audio: AudioFiles) -> list[Mapping[str, Any]]:
    """Rows as their audio lies in archives, which can only be read on; as they are where it lies in files."""
    places = {key: n for n, (key, path) in enumerate(audio.files.items()) if is_embedded(path)}
    return sorted(rows, key=lambda row: places.get(plain(Path(row["filepath"]).name), -1))


def _classes(root: Root, name: str) -> tuple[str, ...]:
    """The order of BirdSet's own JSON, which is not that of the alphabet."""
    path = root.look(f"{name}.json", f"{name.lower()}.json", f"ebird_codes/{name}.json")
    if not path:
        return ()
    try:
        names = read_json(path)["id2label"]
        return tuple(names[number] for number in sorted(names, key=int))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no list of classes with 'id2label' ({error})") from None


def _train_clips(row: Mapping[str, Any], files: AudioFiles) -> Iterable[Clip]:
    """A window for each event of a recording's largest cluster; the first five seconds if it has none."""
    key = plain(Path(row["filepath"]).name)
    path = files.place(key)
    try:
        total = duration(path)
    except AudioError:  # it is missing, or decoding will say why
        total = float(row["length"] or 0) or WINDOW
    labels = tuple(map(str, as_list(row["ebird_code_multilabel"]))) or (str(row["ebird_code"]),)
    events = largest_cluster(as_list(row["detected_events"]), as_list(row["event_cluster"]))
    for start in dict.fromkeys(window_start(begin, end, total) for begin, end in events or [(0.0, WINDOW)]):
        end = round(min(start + WINDOW, total), 6)
        id = f"{key}@{seconds_text(start)}-{seconds_text(end)}"
        yield Clip(id=id, path=path, start=start, end=end, labels=labels, split="train", group=key)


def _test_clip(row: Mapping[str, Any], files: AudioFiles) -> Clip:
    """A piece of five seconds; an empty list of labels is one without a call, and stays."""
    key = plain(Path(row["filepath"]).name)
    labels = tuple(map(str, as_list(row["ebird_code_multilabel"])))
    return Clip(id=key, path=files.place(key), labels=labels, split="test", group=piece(key)[0])


def _events(table: Path, clips: Iterable[Clip]) -> list[Event]:
    """The annotated events of whole soundscapes, cut into the pieces."""
    pieces: dict[str, list[tuple[float, str]]] = {}
    for clip in clips:
        if clip.split == "test":
            scape, offset = piece(clip.id)
            pieces.setdefault(scape, []).append((offset, clip.id))
    events = []
    for row in read_rows(table, STRONG):
        for offset, id in pieces.get(plain(Path(row["filepath"]).name), ()):
            begin, end = max(0.0, row["start_time"] - offset), min(WINDOW, row["end_time"] - offset)
            if begin < end:
                label = str(row["ebird_code"])
                events.append(Event(id=id, start=round(begin, 6), end=round(end, 6), label=label))
    return events


# Region, classes, train recordings and test pieces, as its card has them.
PUBLISHED = {
    "HSN": ("High Sierra Nevada", 21, 5_460, 12_000),
    "PER": ("Amazon Basin", 132, 16_802, 15_120),
    "NES": ("Colombia and Costa Rica", 89, 16_117, 24_480),
    "POW": ("Powdermill", 48, 14_911, 4_560),
    "SNE": ("Sierra Nevada", 56, 19_390, 23_756),
    "UHH": ("Hawaii", 27, 3_626, 36_637),
    "NBP": ("NIPS4Bplus", 51, 24_327, 563),
    "SSW": ("Sapsucker Woods", 81, 28_403, 205_200),
}
BIRDSETS = [
    DatasetSpec(
        name=f"birdset-{name.lower()}",
        title=f"BirdSet {name} ({region})",
        read=partial(read, name=name),
        classes=classes,
        sizes={"train": train, "test": test},
        multilabel=True,
        metric="cmAP",
        audio="32 kHz mono Ogg; train recordings of any length, test pieces of 5 s",
        licence="CC BY-NC 4.0; each recording its own (column license)",
        origin=(
            f"https://huggingface.co/datasets/DBD-research-group/BirdSet, branch data, folder {name}: "
            "metadata and archives, which are read as they are (unpacked there they are read faster)"
        ),
        layout=(
            f"{name}_metadata_{{train,test,test_5s}}.parquet, *.ogg at any depth or {name}_*_shard_*.tar.gz, "
            f"{name}.json (ebird_codes)"
        ),
        citation="Rauch et al., BirdSet, ICLR 2025, https://arxiv.org/abs/2403.10380",
        strong="test, cut into its pieces",
        note=(
            "A train clip is the 5 s around an event of the recording's largest cluster, as BirdSet chooses "
            "events; BirdSet crops at random where this takes the middle. Published sizes of train are "
            "recordings; earlier revisions have others. Test pieces without a call stay, without labels."
            + (" Two of its classes (`reblei`, `melthr`) have no train recording." if name == "UHH" else "")
        ),
    )
    for name, (region, classes, train, test) in PUBLISHED.items()
]
