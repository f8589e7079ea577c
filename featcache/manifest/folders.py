"""A manifest from a folder of class folders, as many data sets are shipped."""

from pathlib import Path

from featcache.errors import InputError, MissingError
from featcache.manifest.clip import SPLITS, Clip, Manifest

AUDIO_SUFFIXES = {
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".au", ".caf", ".w64", ".rf64"),
}


def from_folders(root: str | Path) -> Manifest:
    """A folder of class folders: a file's label is the folder it lies in.

    If the first level is made of ``train``, ``valid`` and ``test`` folders, they are the splits
    and the class folders lie within. Files without a known audio suffix are passed over.

    Raises:
        MissingError: there is no such folder.
        InputError: no audio file lies in a class folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise MissingError(f"no folder at {root}; wanted a folder that holds one folder per class")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    by_split = bool(folders) and all(folder.name in SPLITS for folder in folders)
    groups = [(folder, folder.name) for folder in folders] if by_split else [(root, None)]
    clips = [
        Clip(id=file.relative_to(root).as_posix(), path=file, labels=(label.name,), split=split)
        for top, split in groups
        for label in sorted(top.iterdir())
        if label.is_dir() and not label.name.startswith(".")
        for file in sorted(label.rglob("*"))
        if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file()
    ]
    if not clips:
        raise InputError(f"no audio file in the class folders of {root}; wanted {root}/CLASS/file.wav")
    return Manifest(tuple(clips), root)
