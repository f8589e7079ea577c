"""Files that others may have put there: opened only where they are what they should be.

A cache or a results folder may come from anywhere. What is read of it must be a regular file of
bounded size (a pipe would wait for ever, a device has no end), and what is written to it must not
leave it through a symbolic link. Every refusal is an ``OSError``, as if the disk had said it.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

DOCUMENT_BYTES = 64 * 2**20  # the most that is read of a file that is read whole
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe must not wait for its writer
_WRITE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def open_regular(path: Path) -> int:
    """A descriptor to read a regular file.

    Raises:
        OSError: there is none, it cannot be read, or it is something else.
    """
    return _regular(path, _READ, 0)


def open_own(path: Path, flags: int) -> int:
    """A descriptor to write a file that is ours: a regular one under this very name, not a link.

    Raises:
        OSError: it cannot be written, or it is something else.
    """
    return _regular(path, flags | _WRITE, 0o666)


def read_bytes(path: Path, limit: int = DOCUMENT_BYTES) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        OSError: as `open_regular`, or it is larger.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit >> 20} MB", str(path))
    return data


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: the content is not JSON.
    """
    return parse_json(read_bytes(path))


def parse_json(text: bytes) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is not JSON in UTF-8.
    """
    try:
        return json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def reason(error: OSError) -> str:
    """Why, in words: ``Permission denied``."""
    return error.strerror or str(error)


def quoted(value: str) -> str:
    """Text for a terminal, quoted where it holds what a terminal would act on.

    >>> quoted("eat"), quoted("\\x1b[2J")
    ('eat', '"\\\\u001b[2J"')
    """
    return value if value.isprintable() else json.dumps(value)


def _regular(path: Path, flags: int, mode: int) -> int:
    try:
        descriptor = os.open(path, flags, mode)
    except ValueError:  # a NUL in its name
        raise OSError(errno.EINVAL, "no file can have this name", repr(str(path))) from None
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, "is a symbolic link, which is not followed", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return descriptor
