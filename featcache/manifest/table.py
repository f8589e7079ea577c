"""A table of text as rows of named cells, or the line at which it is none."""

import csv
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from featcache.errors import InputError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# Other names of a column, where no column has its own.
ALIASES = {"path": ("filename", "file"), "labels": ("label", "class", "category")}
ARGUMENTS = {"path": "path_column", "labels": "label_column"}

Row = tuple[int, dict[str, str]]  # the line, from 1; cells by column


def read_table(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    given: Mapping[str, str] = MappingProxyType({}),
    *,
    names: Sequence[str] = (),
    comment: str | None = None,
) -> tuple[list[Row], list[str]]:
    """The rows of a CSV file, and what was taken under another name, in words.

    A row is one line, its cells as many as the header's. Commas, semicolons or tabs are between them,
    whichever the header has; names of columns may be in any case.

    Args:
        given: the header's name for a column, where a caller says it
        names: the columns of a file without a header; one that says the same is passed over
        comment: what lines begin with that are passed over

    Raises:
        InputError: naming the line and what to do.
    """
    with closing(_lines(path, comment)) as file:
        lines: Iterator[tuple[int, str]] = file
        if names:
            lines, delimiter = _after_header(path, file, names)
            number, header = 1, [*names]
        else:
            number, header, delimiter = _header(path, file, required, given)
        places, notes = _places(f"{path} line {number}", header, required, optional, given)
        if delimiter != ",":
            notes.insert(0, f"cells are separated by {DELIMITERS[delimiter]}")
        rows: list[Row] = []
        for number, line in lines:
            cells = _cells(f"{path} line {number}", line, delimiter, len(header))
            rows.append((number, {name: cells[place].strip() for name, place in places.items()}))
    return rows, notes


def _lines(path: Path, comment: str | None) -> Generator[tuple[int, str], None, None]:
    """Lines that are neither blank nor comments, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not (comment and line.startswith(comment)):
                    yield number, line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({(error.strerror or 'unknown error').lower()})") from None


def _header(
    path: Path, lines: Iterator[tuple[int, str]], required: Sequence[str], given: Mapping[str, str]
) -> tuple[int, list[str], str]:
    """The first line, split by the first delimiter that yields every required column."""
    number, line = next(lines, (1, ""))
    for delimiter in DELIMITERS:
        header = _split(f"{path} line {number}", line, delimiter)
        if all(_named(name, header, given) for name in required):
            return number, header, delimiter
    header = _split(f"{path} line {number}", line, ",")
    absent = [given.get(name, name) for name in required if not _named(name, header, given)]
    found = ",".join(header) if line else "an empty file"
    options = tuple(ARGUMENTS.values()) if set(required) == set(ARGUMENTS) else ()
    hint = f"; rename its columns, or name those to take with {' and '.join(options)}" if options else ""
    raise InputError(
        f"{path} has no column {' or '.join(map(repr, absent))}; wanted {','.join(required)}, "
        f"found {found}{hint}",
        options=options,
    )


def _after_header(
    path: Path, lines: Iterator[tuple[int, str]], names: Sequence[str]
) -> tuple[Iterator[tuple[int, str]], str]:
    """The lines below a header that need not be there, and what stands between their cells."""
    first = next(lines, None)
    if first is None:
        raise InputError(f"{path} is an empty file; wanted rows of {','.join(names)}")
    for delimiter in DELIMITERS:
        cells = _split(f"{path} line {first[0]}", first[1], delimiter)
        if len(cells) == len(names):
            same = [cell.strip().casefold() for cell in cells] == [name.casefold() for name in names]
            return (lines if same else chain([first], lines)), delimiter
    raise InputError(
        f"{path} line {first[0]} is {first[1]!r}; wanted the {len(names)} cells {','.join(names)}"
    )


def _split(where: str, line: str, delimiter: str) -> list[str]:
    try:
        (cells,) = csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True)
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise InputError(
                f'{where}: a quote (") is opened and not closed on this line; close it, remove it, or, where '
                'it is part of a name, double it ("") inside quotes; a cell cannot go over several lines'
            ) from None
        raise InputError(f"{where} is no row of a CSV file ({error}); mend its quotes") from None
    return cells


def _cells(where: str, line: str, delimiter: str, wanted: int) -> list[str]:
    cells = _split(where, line, delimiter)
    while len(cells) > wanted and not cells[-1].strip():  # spreadsheets end rows with empty cells
        cells.pop()
    if len(cells) != wanted:
        raise InputError(
            f"{where} has {len(cells)} cells, the header {wanted}; put a cell that has a "
            f"{delimiter!r} in it in quotes, separate labels with ; inside one cell, and leave no cell out"
        )
    if "\0" in line:
        raise InputError(f"{where} has a NUL character; remove it")
    return cells


def _named(name: str, header: Sequence[str], given: Mapping[str, str]) -> list[int]:
    """Where the columns are that could be this one: those of its own name, else of its other names."""
    if name in given:
        exact = [place for place, cell in enumerate(header) if cell.strip() == given[name].strip()]
        return exact or _match((given[name],), header)
    return _match((name,), header) or _match(ALIASES.get(name, ()), header)


def _match(names: Sequence[str], header: Sequence[str]) -> list[int]:
    wanted = {name.strip().casefold() for name in names}
    return [place for place, cell in enumerate(header) if cell.strip().casefold() in wanted]


def _places(
    where: str,
    header: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
    given: Mapping[str, str],
) -> tuple[dict[str, int], list[str]]:
    places, notes = {}, []
    for name in (*required, *optional):
        found = _named(name, header, given)
        if len(found) > 1:
            names = ", ".join(repr(header[place].strip()) for place in found)
            argument = ARGUMENTS.get(name)
            hint = f", or name one with {argument}" if argument else ""
            raise InputError(
                f"{where}: {len(found)} columns could be {name} ({names}); rename all but one{hint}",
                options=(argument,) if argument else (),
            )
        if found:
            (places[name],) = found
            own = header[found[0]].strip()
            if own.casefold() != name:
                notes.append(f"column {own!r} is taken for {name}")
    return places, notes
