"""A line of results may have been edited: every field gone or of another type is one error, or no matter."""

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import FeatcacheError, InputError
from featcache.heads.probing.probe import probe
from featcache.heads.report.compare import compare
from featcache.heads.report.results import read_results
from featcache.heads.report.summary import cells
from featcache.heads.report.terminal import summary_lines

Make = Callable[..., tuple[Path, Path]]
GONE = object()


def fields(record: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in record.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from fields(value, (*above, name))


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results lie as soon as a test has asked for them."""
    return tmp_path_factory.mktemp("probed") / "out"


@pytest.fixture(name="home")
def _home(make_tokens: Make, tmp_path: Path, probed: Path) -> Path:
    if not probed.exists():
        probe(*make_tokens(), heads="linear", epochs=2, batch_size=16, seeds=2, solved=False, search=True,
              trials=2, out=probed)  # fmt: skip
    shutil.copytree(probed, tmp_path / "out")
    return tmp_path / "out"


def lines_of(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "results.jsonl").read_text().splitlines()]


def changed(home: Path, lines: list[dict[str, Any]], field: tuple[str, ...], value: object) -> None:
    """Write the lines, with one field of the first changed or gone."""
    lines = copy.deepcopy(lines)
    *above, last = field
    record = lines[0]
    for name in above:
        record = record[name]
    record.pop(last) if value is GONE else record.update({last: value})
    (home / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("value", [GONE, None, "x", 3, [1]], ids=["gone", "null", "text", "number", "list"])
def test_no_field_gone_or_of_another_type_gives_a_traceback(home: Path, value: object) -> None:
    lines = lines_of(home)
    for field in list(fields(lines[0])):
        changed(home, lines, field, value)
        with suppress(FeatcacheError):
            compare(home, draws=0)
            summary_lines(read_results([home]))


@pytest.mark.parametrize(
    "field", [("seed",), ("cache", "dtype"), ("options",), ("metric",), ("clips", "train")], ids=".".join
)
def test_what_a_reader_needs_is_asked_for_when_it_is_read(home: Path, field: tuple[str, ...]) -> None:
    changed(home, lines_of(home), field, [1])
    with pytest.raises(InputError, match=r"results\.jsonl line 1 is not a result; wanted the results\.jsonl"):
        read_results([home])


def test_a_score_that_does_not_exist_has_no_spread(home: Path) -> None:
    changed(home, lines_of(home), ("test", "mAP"), None)
    (cell,) = cells(read_results([home]))
    assert cell.runs == 2
    assert math.isnan(cell.mean)
    assert cell.sd is not None
    assert math.isnan(cell.sd)
