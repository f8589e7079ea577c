"""Files of JSON lines: appended durably, read past what a crash has torn."""

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from featcache.files import open_own, open_regular, parse_json

FILE_BYTES = 2**30  # the most that is read of a file; a ledger of two million clips has a hundredth of it


class Line(NamedTuple):
    """One line of a file."""

    number: int  # from 1
    record: dict[str, Any] | None  # None: not a JSON object
    torn: bool  # the last line, without its line break: a crash cut it short


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a file; none where there is no file.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than 1 GB.
    """
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > FILE_BYTES:
            raise OSError(errno.EFBIG, f"has more than {FILE_BYTES >> 20} MB", str(path))
        for number, text in enumerate(file, start=1):
            yield Line(number, _record(text), not text.endswith(b"\n"))


def records(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file; what cannot be read is passed over."""
    return [line.record for line in read_lines(path) if line.record is not None]


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a file, in one write, durable on return; a last line torn by a crash is closed first.

    Raises:
        OSError: the disk is full (what was written of the lines is torn), or the file is a link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        text = "".join(encode(line) for line in lines).encode()
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            text = b"\n" + text
        if os.write(descriptor, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def encode(record: Mapping[str, Any]) -> str:
    """One line; JSON has no NaN, so a number that does not exist is null."""
    return json.dumps(_plain(record), allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _record(text: bytes) -> dict[str, Any] | None:
    try:
        record = parse_json(text)
    except ValueError:  # also bytes that are no UTF-8
        return None
    return record if isinstance(record, dict) else None
