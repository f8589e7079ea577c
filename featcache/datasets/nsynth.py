"""NSynth: single notes of instruments."""

from pathlib import Path
from typing import Any

from featcache.datasets.listing import Listing
from featcache.datasets.root import AudioFiles, Root
from featcache.datasets.spec import DatasetSpec
from featcache.errors import InputError
from featcache.files import DOCUMENT_BYTES, parse_json, read_bytes
from featcache.manifest import Clip

FAMILY, PITCH = "instrument_family_str", "pitch"


def read_instruments(root: Root) -> Listing:
    """The family of the instrument as label."""
    return _read(root, FAMILY)


def read_pitches(root: Root) -> Listing:
    """The MIDI number of the pitch as label."""
    return _read(root, PITCH)


def _read(root: Root, key: str) -> Listing:
    clips = []
    for split in ("train", "valid", "test"):
        if root.wants(split):
            table = root.find(f"nsynth-{split}/examples.json")
            files = AudioFiles(table.parent / "audio")
            clips += [
                Clip(id=name, path=files.place(name), labels=(_label(table, note, key),), split=split)
                for name, note in _notes(table).items()
            ]
    labels = {clip.labels[0] for clip in clips}
    order = sorted(labels, key=int) if key == PITCH else sorted(labels)
    return Listing(clips=clips, classes=tuple(order))


def _notes(table: Path) -> dict[str, dict[str, Any]]:
    try:
        notes = parse_json(read_bytes(table, 16 * DOCUMENT_BYTES))  # train's has 200 MB
        return {name: dict(note) for name, note in notes.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{table} is no list of notes ({error})") from None


def _label(table: Path, note: dict[str, Any], key: str) -> str:
    if key not in note:
        raise InputError(f"{table} has no {key!r} for a note; found {', '.join(note)}")
    return str(note[key])


_FACTS = {
    "sizes": {"train": 289_205, "valid": 12_678, "test": 4_096},
    "multilabel": False,
    "metric": "accuracy",
    "audio": "16 kHz mono, 4 s",
    "licence": "CC BY 4.0",
    "origin": "https://magenta.tensorflow.org/datasets/nsynth",
    "layout": "nsynth-{train,valid,test}/examples.json and audio/",
    "citation": "Engel et al., ICML 2017, https://arxiv.org/abs/1704.01279",
}
INSTRUMENTS = DatasetSpec(
    name="nsynth-instrument", title="NSynth, instrument families", read=read_instruments, classes=11,
    note="As in X-ARES.", **_FACTS,  # type: ignore[arg-type]
)  # fmt: skip
PITCHES = DatasetSpec(
    name="nsynth-pitch", title="NSynth, pitches", read=read_pitches, classes=128,
    note="All MIDI pitches that occur; HEAR keeps 21 to 108.", **_FACTS,  # type: ignore[arg-type]
)  # fmt: skip
