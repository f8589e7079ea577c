"""Folders of results: looked at before any work, and spoken of in one line when they fill up."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache.cache.format.durable import FULL
from featcache.errors import FeatcacheError, InputError, OutputError
from featcache.files import reason

NAME_BYTES = 180  # of a file's name; file systems take 255, and suffixes are added


def writable(out: Path) -> None:
    """See that a folder can be written to, or made, before work is spent on what goes there.

    Raises:
        InputError: it is a file or has no right to be written.
    """
    try:
        path = out.absolute()
        while not os.path.lexists(path) and path != path.parent:
            path = path.parent
        folder = path.is_dir()
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "no file can have this name"
        raise InputError(
            f"{str(out)!r} cannot be written to ({why}); choose another", options=("out",)
        ) from None
    if not folder:
        raise InputError(f"{out} cannot be a folder: {path} is not one; choose another", options=("out",))
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written to; choose another folder", options=("out",))


def writable_file(path: Path) -> None:
    """See that a file can be written, and make its folder.

    Raises:
        InputError: it is a folder, or its folder is a file or has no right to be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it", options=("out",))
    writable(path.parent)
    with keeping(path, "nothing was written"):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def keeping(out: Path, kept: str = "what is finished is kept") -> Iterator[None]:
    """Turn a failed write into one sentence that says what is safe and how to go on.

    Args:
        kept: what is safe

    Raises:
        OutputError: in place of an OSError.
    """
    try:
        yield
    except FeatcacheError:  # some are OSErrors, too, and say what there is to say
        raise
    except OSError as error:
        why = FULL.get(error.errno or 0) or reason(error)
        advice = "make room, then " if error.errno in FULL else ""
        where = f" ({error.filename})" if error.filename else ""
        raise OutputError(
            f"cannot write to {out}: {why}{where}; {kept}: {advice}run the same command again to go on"
        ) from error


def file_name(text: str) -> str:
    """A file's name made of any text: no separators, and no longer than file systems take.

    >>> file_name("eat-a/b"), len(file_name("é" * 300).encode())
    ('eat-a_b', 180)
    """
    plain = text.replace("/", "_").replace("\0", "_")
    return plain.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore")
