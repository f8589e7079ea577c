"""A manifest from a folder of class folders, as many data sets are shipped."""

import os
from pathlib import Path

from featcache.errors import InputError, MissingError
from featcache.manifest.clip import SPLIT_NAMES, Clip, Manifest
from featcache.manifest.files import FOLDER, file_problem, printable

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"),
}


def from_folders(root: str | Path) -> Manifest:
    """A folder of class folders: a file's label is the folder it lies in.

    What cannot be opened (a pipe, a broken link) is a clip all the same, and fails when it is decoded.
    If the first level is made of ``train``, ``valid`` and ``test`` folders (or ``val``, ``dev``,
    ``eval`` …), they are the splits and the class folders lie within. Files without a known audio
    suffix are passed over.

    Raises:
        MissingError: there is no such folder.
        InputError: no audio file lies in a class folder, or a folder cannot be read.
    """
    root = Path(root)
    if file_problem(root) != FOLDER:
        raise MissingError(f"no folder at {printable(root)}; wanted a folder that holds one folder per class")
    folders = _folders(root)
    by_split = bool(folders) and all(folder.name.casefold() in SPLIT_NAMES for folder in folders)
    groups: list[tuple[Path, str | None]] = (
        [(folder, SPLIT_NAMES[folder.name.casefold()]) for folder in folders] if by_split else [(root, None)]
    )
    clips = [
        Clip(
            id=printable(file.relative_to(root).as_posix()),
            path=file,
            labels=(printable(label.name),),
            split=split,
        )
        for top, split in groups
        for label in _folders(top)
        for file in _files(label)
        if file.suffix.lower() in AUDIO_SUFFIXES
    ]
    if not clips:
        raise InputError(f"no audio file in the class folders of {root}; wanted {root}/CLASS/file.wav")
    return Manifest(tuple(clips), root)


def _folders(root: Path) -> list[Path]:
    """The folders in one, hidden ones left out."""
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _unreadable(error) from None


def _files(root: Path) -> list[Path]:
    """Whatever lies below a folder and is none, at any depth."""

    def stop(error: OSError) -> None:
        raise _unreadable(error) from None

    return sorted(Path(folder, name) for folder, _, names in os.walk(root, onerror=stop) for name in names)


def _unreadable(error: OSError) -> InputError:
    reason = (error.strerror or "unknown error").lower()
    return InputError(
        f"the folder {printable(error.filename)} cannot be read ({reason}); make it readable or move it away"
    )
