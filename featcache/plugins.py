"""Classes of users: from a file of theirs, or from an installed package's entry points."""

import sys
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from featcache.errors import InputError, MissingError


def from_file(name: str, kind: str) -> Any:
    """The object that ``path/to/file.py:NAME`` names; the file is run, as any import is.

    Args:
        kind: "encoder" or "head", for messages

    Raises:
        MissingError: there is no such file.
        InputError: the file cannot be run, or has no such name.
    """
    file, attribute = name.rsplit(":", 1)
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingError(f"no {kind} file at {path}; write path/to/file.py:Class")
    key = f"featcache_{kind}_{path.stem}"
    spec = spec_from_file_location(key, path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[key] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    if not hasattr(module, attribute):
        classes = [own for own, value in vars(module).items() if isinstance(value, type)]
        raise InputError(f"{path} has no {attribute}; it has: {', '.join(sorted(classes)) or 'no class'}")
    return getattr(module, attribute)


def entry_point(group: str, name: str) -> Any:
    """What an installed package offers under this name; None where none does."""
    return next((point.load() for point in entry_points(group=group) if point.name == name), None)


def entry_point_names(group: str) -> set[str]:
    """The names that installed packages offer."""
    return {point.name for point in entry_points(group=group)}
