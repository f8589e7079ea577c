"""Classes of users: from a file of theirs, or from an installed package's entry points."""

import inspect
import sys
import traceback
from collections.abc import Callable
from hashlib import blake2b
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from featcache.errors import InputError, MissingError


class Found(NamedTuple):
    """What a file has under a name, and the digest of the file's text as it was run."""

    target: Any
    digest: str


class _Ran(NamedTuple):
    digest: str
    module: ModuleType


_RAN: dict[Path, _Ran] = {}


def from_file(name: str, kind: str, *, again: bool = True) -> Found:
    """The object that ``path/to/file.py:NAME`` names; the file is run, as any import is.

    Args:
        kind: "encoder" or "head", for messages
        again: run the file again where it has changed since; else it stays as it was first run

    Raises:
        MissingError: there is no such file.
        InputError: the file cannot be run, or has no such name.
    """
    file, attribute = name.rsplit(":", 1)
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingError(f"no {kind} file at {path}; write path/to/file.py:Class")
    module, digest = _module(path, kind, again)
    if not attribute or not hasattr(module, attribute):
        own = [each for each, value in vars(module).items() if _defined_in(value, module)]
        asked = attribute or "name after the colon"
        raise InputError(f"{path} has no {asked}; it has: {', '.join(sorted(own)) or 'no class'}")
    return Found(getattr(module, attribute), digest)


def _defined_in(value: object, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _module(path: Path, kind: str, again: bool) -> tuple[ModuleType, str]:
    """The module that a file makes, and the digest of its text."""
    key = path.resolve()
    ran = _RAN.get(key)
    if ran is not None and not again:
        return ran.module, ran.digest
    text = path.read_bytes()
    digest = blake2b(text, digest_size=8).hexdigest()
    if ran is None or ran.digest != digest:
        place = blake2b(str(key).encode(), digest_size=4).hexdigest()  # files of one name are many
        ran = _RAN[key] = _Ran(digest, _run(path, text, f"featcache_{kind}_{path.stem}_{place}"))
    return ran.module, ran.digest


def _run(path: Path, text: bytes, key: str) -> ModuleType:
    """Run the text of a file as a module; what it raises becomes one line."""
    spec = spec_from_file_location(key, path)
    assert spec is not None  # the name ends in .py
    module, before = module_from_spec(spec), sys.modules.get(key)
    sys.modules[key] = module  # dataclasses look their module up
    try:
        # Not by the loader, whose stored bytecode may be that of a text of the same second and length.
        exec(compile(text, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        sys.modules.pop(key)
        if before is not None:
            sys.modules[key] = before
        raise InputError(f"{path} cannot be run: {_why(error, path)}; mend it") from error
    return module


def _why(error: BaseException, path: Path) -> str:
    """The error in one line, with the line of the file that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    numbers = [frame.lineno for frame in frames if frame.filename == str(path)]
    text = str(error)
    if isinstance(error, SyntaxError):
        text = error.msg
        numbers += [error.lineno] if error.filename == str(path) else []
    where = f" in line {numbers[-1]}" if numbers else ""
    first = next(iter(text.splitlines()), "")
    return f"{type(error).__name__}{where}{first and f': {first}'}"


def entry_point(group: str, name: str) -> Any:
    """What an installed package offers under this name; None where none does.

    Raises:
        InputError: the package says that it has it, and it cannot be imported.
    """
    point = next((each for each in entry_points(group=group) if each.name == name), None)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"{point.value}, the entry point {name!r} of {group}, cannot be imported "
            f"({type(error).__name__}: {first}); mend or uninstall its package"
        ) from error


def entry_point_names(group: str) -> set[str]:
    """The names that installed packages offer."""
    return {point.name for point in entry_points(group=group)}


def source_digest(target: type | Callable[..., Any]) -> str:
    """16 hex digits over the source of a class and of the user's classes it derives from.

    Empty for featcache's own and where Python does not know the source.
    """
    family = target.__mro__ if isinstance(target, type) else (target,)
    theirs = [
        each for each in family if each.__module__.split(".")[0] not in ("builtins", "torch", "featcache")
    ]
    try:
        text = "".join(inspect.getsource(each) for each in theirs)
    except (OSError, TypeError):
        return ""
    return blake2b(text.encode(), digest_size=8).hexdigest() if text else ""
