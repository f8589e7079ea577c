"""Strong labels: when in a clip each class sounds. A CSV file beside the manifest holds them."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from featcache.cache.format.durable import replace_file
from featcache.errors import InputError, MissingError
from featcache.manifest.files import file_problem
from featcache.manifest.read import seconds
from featcache.manifest.table import read_table

COLUMNS = ("id", "start", "end", "label")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One sound of a class in a clip: what a localisation is held against."""

    id: str  # of the clip
    start: float  # [s] in the clip, not in its file
    end: float  # [s] in the clip
    label: str


def events_file(manifest: Path) -> Path:
    """Where the events of a manifest are.

    >>> events_file(Path("desed.csv"))
    PosixPath('desed.events.csv')
    """
    return manifest.with_suffix(".events.csv")


def read_events(path: str | Path) -> dict[str, list[Event]]:
    """Clip id -> its events by start, from a CSV file with the columns ``id,start,end,label``.

    Raises:
        MissingError: there is no such file.
        InputError: a column or cell is wrong, or an event does not end after its start.
    """
    path = Path(path)
    if file_problem(path) == "no such file":
        raise MissingError(f"no events at {path}; wanted a CSV file with the header {','.join(COLUMNS)}")
    table: dict[str, list[Event]] = {}
    for line, row in read_table(path, COLUMNS)[0]:
        event = make_event(f"{path} line {line}", row["id"], row["start"], row["end"], row["label"])
        table.setdefault(event.id, []).append(event)
    return {id: sorted(events, key=lambda event: event.start) for id, events in table.items()}


def make_event(where: str, id: str, start: str, end: str, label: str) -> Event:
    """An event from the text of its cells.

    Raises:
        InputError: a time is none, or the event has no length.
    """
    begin, stop = (seconds(where, name, text) for name, text in (("start", start), ("end", end)))
    if begin is None or stop is None:
        raise InputError(f"{where}: an event of {label!r} has no start or no end; wanted both, in seconds")
    if stop <= begin:
        raise InputError(
            f"{where}: the event {label!r} ends at {stop:g} s and begins at {begin:g} s; mend it"
        )
    return Event(id=id, start=begin, end=stop, label=label)


def write_events_beside(manifest: Path, events: Iterable[Event]) -> None:
    """Write a manifest's events beside it; without any, those of an earlier one are removed."""
    events = list(events)
    if events:
        write_events(events_file(manifest), events)
    else:
        events_file(manifest).unlink(missing_ok=True)


def write_events(path: str | Path, events: Iterable[Event]) -> None:
    """Write events as a CSV file; what a subclass knows of them besides follows in further columns."""
    events = list(events)
    names = [field.name for field in fields(events[0])] if events else list(COLUMNS)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(names)
    rows.writerows([getattr(event, name) for name in names] for event in events)
    replace_file(Path(path), text.getvalue().encode(), durable=False)
