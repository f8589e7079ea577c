"""Detections and frames to files: whole at the end, or not there."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from featcache.cache.format.durable import partial_path, replace_file
from featcache.errors import InputError
from featcache.heads.predicting.decide import Detection
from featcache.heads.predicting.recordings import Scored
from featcache.manifest.clip import seconds_text
from featcache.output import file_name

Rows = list[Detection]  # of one recording


def write_rows(path: Path, recordings: Iterable[Rows]) -> int:
    """All detections as one table of file, start, end, label, score; its kind is the suffix of the path.

    Returns:
        How many there are.

    Raises:
        InputError: another suffix than .csv, .jsonl or .parquet.
    """
    check_table(path)
    with _whole(path) as partial:
        if path.suffix == ".parquet":
            return _write_parquet(partial, recordings)
        with partial.open("w", encoding="utf-8", newline="") as file:
            return TEXTS[path.suffix](file, recordings)


def check_table(path: Path) -> None:
    """Refuse a path of a kind that cannot be written, before any work.

    Raises:
        InputError: another suffix than .csv, .jsonl or .parquet, or pyarrow is not installed.
    """
    if path.suffix not in (*TEXTS, ".parquet"):
        raise InputError(f"{path} must end in .csv, .jsonl or .parquet", options=("out",))
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise InputError(
                "parquet files need pyarrow: pip install 'featcache[parquet]'", options=("out",)
            ) from None


def write_csv(file: TextIO, recordings: Iterable[Rows]) -> int:
    """Rows with a header; times to the microsecond."""
    table = csv.writer(file, lineterminator="\n")
    table.writerow(Detection._fields)
    count = 0
    for rows in recordings:
        count += len(rows)
        for name, start, end, label, score in rows:
            table.writerow([name, seconds_text(start), seconds_text(end), label, f"{score:.6f}"])
    return count


def write_jsonl(file: TextIO, recordings: Iterable[Rows]) -> int:
    """An object a line."""
    count = 0
    for rows in recordings:
        count += len(rows)
        file.writelines(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
    return count


TEXTS: dict[str, Callable[[TextIO, Iterable[Rows]], int]] = {".csv": write_csv, ".jsonl": write_jsonl}


def _write_parquet(path: Path, recordings: Iterable[Rows]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (pa.string(), pa.float64(), pa.float64(), pa.string(), pa.float64())
    schema = pa.schema(list(zip(Detection._fields, kinds, strict=True)))
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        for rows in recordings:
            count += len(rows)
            writer.write_table(pa.Table.from_pylist([row._asdict() for row in rows], schema))
    return count


def audacity_labels(rows: Iterable[Detection]) -> str:
    """A label track of Audacity: start, end and label, by tabs.

    >>> audacity_labels([Detection("a.wav", 1.0, 2.5, "dog", 0.9)])
    '1.000000\\t2.500000\\tdog 0.90\\n'
    """
    return "".join(f"{row.start:.6f}\t{row.end:.6f}\t{_plain(row.label)} {row.score:.2f}\n" for row in rows)


def raven_selections(rows: Iterable[Detection], nyquist: float) -> str:
    """A selection table of Raven.

    Args:
        nyquist: [Hz] upper edge of the selections: a head says nothing of frequencies
    """
    names = (
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
        "Species", "Score",
    )  # fmt: skip
    lines = ["\t".join(names)]
    for number, row in enumerate(rows, 1):
        times = f"{row.start:.6f}\t{row.end:.6f}"
        lines.append(
            f"{number}\tSpectrogram 1\t1\t{times}\t0\t{nyquist:g}\t{_plain(row.label)}\t{row.score:.6f}"
        )
    return "\n".join(lines) + "\n"


def _plain(label: str) -> str:
    return " ".join(label.split())  # a tab or a line's end in a label would be a column or a row


def write_frames(path: Path, windows: Sequence[Scored], classes: Sequence[str], step: float) -> None:
    """Logits over time of one recording: ``seconds`` (T,), ``logits`` (T, C), ``classes`` (C,).

    Where windows overlap, their steps follow one another.

    Args:
        step: [s] between two of them
    """
    seconds = [own.start + step * np.arange(len(own.frames)) for own in windows if own.frames is not None]
    logits = [own.frames for own in windows if own.frames is not None]
    content = io.BytesIO()
    np.savez_compressed(
        content, seconds=np.concatenate(seconds), logits=np.concatenate(logits), classes=np.array(classes)
    )
    replace_file(path, content.getvalue(), durable=False)


def names_for(files: Iterable[str]) -> dict[str, str]:
    """A name for each recording's own table: its stem, or its path where another has the same stem.

    >>> names_for(["a/x.wav", "b/x.wav", "y.wav"])
    {'a/x.wav': 'a_x.wav', 'b/x.wav': 'b_x.wav', 'y.wav': 'y'}
    """
    files = list(dict.fromkeys(files))
    stems = [Path(file).stem for file in files]
    return {
        file: file_name(stem if stems.count(stem) == 1 else file.lstrip("/"))
        for file, stem in zip(files, stems, strict=True)
    }


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    partial: Any = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
