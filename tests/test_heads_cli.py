"""``featcache heads``."""

import json

import pytest
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.heads import HEADS
from featcache.heads.solved.registry import SOLVED


def run(*arguments):
    return CliRunner().invoke(featcache, ["heads", *arguments])


def test_every_head_has_a_line():
    result = run()
    assert result.exit_code == 0
    trained, solved = result.output.split("\nsolved, not trained")
    assert [line.split()[0] for line in trained.splitlines()] == list(HEADS)
    assert [line.split()[0] for line in solved.splitlines()[1:]] == list(SOLVED)


def test_json_holds_the_table():
    rows = {row["name"]: row for row in json.loads(run("--json").output)}
    assert list(rows) == [*HEADS, *SOLVED]
    for name, spec in HEADS.items():
        for fact in ("family", "summary", "formula", "parameters", "source"):
            assert rows[name][fact] == getattr(spec, fact)


@pytest.mark.parametrize("name", ["mhca", "attentive"])
def test_one_head_is_shown_by_name_or_alias(name):
    result = run(name)
    assert HEADS["mhca"].formula in result.output
    assert json.loads(run(name, "--json").output)["name"] == "mhca"


def test_unknown_head_is_one_line_with_the_nearest():
    result = run("protobim")
    assert result.exit_code == 2
    assert result.output.strip() == str(result.output.splitlines()[0])
    assert "no head named 'protobim'; did you mean 'protobin'" in result.output
