"""``featcache demo``: small, offline, and honest about what is already there."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from featcache.cli.main import featcache
from featcache.manifest.events import read_events


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, ["demo", *map(str, arguments)])


def test_the_demo_runs_both_stages_and_draws_what_it_found(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = run("--out", out, "--clips", 40, "--epochs", 2, "--seeds", 1)
    assert result.exit_code == 0, result.output
    for word in ("linear", "attentive", "protobin", "featcache extract", "featcache probe", str(out)):
        assert word in result.stdout
    assert (out / "found.png").read_bytes().startswith(b"\x89PNG")
    assert f"what protobin has learned: {out / 'explain.html'}" in result.stdout
    assert b"<!doctype html>" in (out / "explain.html").read_bytes()
    assert len(read_events(out / "manifest.events.csv")) == 40
    lines = [json.loads(line) for line in (out / "results" / "results.jsonl").read_text().splitlines()]
    assert [line["head"] for line in lines] == ["linear", "mhca", "protobin"]
    again = run("--out", out, "--clips", 40, "--epochs", 2, "--seeds", 1)
    assert again.exit_code == 0, again.output
    assert "40 already there" in again.stdout


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    result = run("--out", tmp_path)
    assert result.exit_code == 2
    assert "is no demo of featcache; choose another --out" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_another_setting_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text(json.dumps({"clips": 40, "seed": 0}))
    result = run("--out", tmp_path, "--clips", 60)
    assert result.exit_code == 2
    assert "holds a demo made with --clips 40 --seed 0" in result.stderr
