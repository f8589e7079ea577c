"""Parquet files as the Hugging Face Hub has them: labels by name, and audio as bytes inside.

The audio of row 12 of ``x.parquet`` has the path ``x.parquet/12``: such a path stands wherever that of a
file does.
Needs pyarrow (``pip install 'featcache[parquet]'``).
"""

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from featcache.errors import AudioError, InputError

SUFFIX = ".parquet"
ROWS = 1024  # read at a time, without the audio
_reading = Lock()  # many threads want rows of one group: it is read once


def is_embedded(path: Path) -> bool:
    """Whether a path is that of a row in a parquet file.

    >>> is_embedded(Path("x.parquet/12")), is_embedded(Path("x.parquet")), is_embedded(Path("a/12"))
    (True, False, False)
    """
    return path.parent.suffix == SUFFIX and path.name.isdecimal()


def embedded_bytes(path: Path) -> bytes:
    """The audio of one row, as it was stored. Row groups are read whole; the last two are kept.

    Raises:
        AudioError: there is no such row, or it holds no bytes.
        InputError: the file cannot be read or has no audio.
    """
    file, row = path.parent, int(path.name)
    with _reading:
        first, ends = _groups(file, file.stat().st_mtime_ns)
        if row >= (ends[-1] if ends else 0):
            raise AudioError(f"{path}: the file has {ends[-1] if ends else 0} rows")
        group = next(number for number, end in enumerate(ends) if row < end)
        column = _audio_of_group(file, file.stat().st_mtime_ns, group)
    data = column[row - first[group]].as_py()
    if not data or not data.get("bytes"):
        raise AudioError(f"{path}: holds no bytes of audio; the file was made without them")
    return bytes(data["bytes"])


def audio_column(path: Path) -> str | None:
    """The first column that holds audio: ``struct<bytes, path>``."""
    types = _pyarrow().types
    for field in _open(path).schema_arrow:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    return None


def column_names(path: Path) -> list[str]:
    """The columns of a file."""
    return list(_open(path).schema_arrow.names)


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of some columns; what the Hub stores as number of a class comes by its name.

    Raises:
        InputError: pyarrow is not installed, this is no parquet file, or it lacks a column.
    """
    file = _open(path)
    absent = [name for name in columns if name not in file.schema_arrow.names]
    if absent:
        raise InputError(f"{path} has no column {' or '.join(map(repr, absent))}; {_found(file)}")
    names = _class_names(file.schema_arrow)
    for batch in file.iter_batches(batch_size=ROWS, columns=list(columns)):
        for row in batch.to_pylist():
            yield {key: _named(value, names.get(key)) for key, value in row.items()}


def _found(file: Any) -> str:
    return f"found the columns {', '.join(file.schema_arrow.names)}"


def _named(value: Any, names: Sequence[str] | None) -> Any:
    if names is None or value is None:
        return value
    return [names[number] for number in value] if isinstance(value, list) else names[value]


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Names of classes by column, from the Hub's own metadata; lists of classes are spelt in three ways."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError):
        return {}
    inner = {
        name: own.get("feature", own) if isinstance(own, dict) else own[0] for name, own in features.items()
    }
    return {name: own["names"] for name, own in inner.items() if isinstance(own, dict) and "names" in own}


def _open(path: Path) -> Any:
    parquet = _pyarrow().parquet
    try:
        return parquet.ParquetFile(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} cannot be read as parquet ({reason})") from None


@lru_cache(maxsize=64)
def _groups(path: Path, _mtime_ns: int) -> tuple[list[int], list[int]]:
    """First row of each row group, and the row behind its last."""
    metadata = _open(path).metadata
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [end - size for end, size in zip(ends, sizes, strict=True)], ends


@lru_cache(maxsize=2)
def _audio_of_group(path: Path, _mtime_ns: int, group: int) -> Any:
    name = audio_column(path)
    if name is None:
        raise InputError(f"{path} has no audio, a column of bytes and path; {_found(_open(path))}")
    return _open(path).read_row_group(group, columns=[name]).column(0)


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "parquet files need pyarrow; install it with pip install 'featcache[parquet]'"
        ) from None
    return pyarrow
