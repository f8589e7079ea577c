"""``featcache report``: the numbers of ``compare`` on a page that a browser sorts and filters."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import average_precision_score

from featcache.cli.main import featcache

from .browser import CHROMIUM, Browser
from .test_compare_rows import line


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two encoders and two heads, two seeds each, with test scores."""
    random, folder = np.random.default_rng(0), tmp_path / "results"
    (folder / "scores").mkdir(parents=True)
    targets = (random.random((40, 3)) < 0.4).astype(np.uint8)
    lines = []
    for number in range(8):
        run, skill = f"run{number}", 0.3 + number // 2
        logits = (skill * targets + random.standard_normal((40, 3))).astype(np.float32)
        ids = np.array([f"c{clip}" for clip in range(40)])
        np.savez(folder / f"scores/{run}.npz", ids=ids, logits=logits, targets=targets)
        own = dict(line(0.5 + number / 100, seed=number % 2).line)
        own |= {
            "run": run, "encoder": ("eat", "beats")[number // 2 % 2],
            "head": ("linear", "protobin")[number // 4],
            "files": {"scores": f"scores/{run}.npz"}, "command": ["featcache", "probe", "a cache<b>"],
            "per_class": {"a": 0.9, "b": 0.2 + number / 20, "c": 0.4},
            "train_per_class": {"a": 9, "b": 4, "c": 5},
            **({"parameters": 51_000, "read_bytes": 1_000_000 * number} if number < 6 else {}),
        }  # fmt: skip
        lines.append(json.dumps(own))
    (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, ["report", *map(str, arguments)])


def data_of(path: Path) -> dict[str, Any]:
    found = re.search(r"^const DATA = (.*);$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def precision_of(path: Path) -> float:
    with np.load(path) as arrays:  # closed: an open one is a warning in whichever test comes next
        return float(average_precision_score(arrays["targets"], arrays["logits"]))


def test_the_page_has_the_rows_and_sorts_and_filters_them(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = run(results, "--out", page, "--draws", 200)
    assert done.exit_code == 0, done.output
    data = data_of(page)
    assert [row["score"] for row in data["rows"]] == pytest.approx([0.505, 0.525, 0.545, 0.565])
    assert all(row["interval"][0] < row["interval"][1] for row in data["rows"])
    for place, row in enumerate(data["rows"]):  # each has two runs, one after the other
        wanted = np.mean([precision_of(results / f"scores/run{2 * place + seed}.npz") for seed in range(2)])
        assert row["interval"][0] < wanted < row["interval"][1]
    assert data["rows"][0]["command"] == "featcache probe 'a cache<b>'"
    assert {own["name"] for own in data["pictures"]} == {"wins-heads", "wins-encoders", "ranks", "classes"}
    assert [row["parameters"] for row in data["rows"]] == [51_000, 51_000, 51_000, None]
    assert [row["read_bytes"] for row in data["rows"]] == [0.5e6, 2.5e6, 4.5e6, None]
    assert data["downloads"]["csv"].count("\n") >= 5
    if CHROMIUM is None:
        pytest.skip("no chromium here (Debian's package chromium)")
    browser = Browser(page, tmp_path / "profile", width=375, dark=True)
    try:
        assert browser.ask("document.documentElement.scrollWidth") <= 375
        assert browser.ask("[...document.images].every((image) => image.alt && image.naturalWidth > 0)")
        rows = "[...document.querySelectorAll('#rows tbody tr')]"
        column = f"{rows}.map((row) => row.cells[3].textContent.slice(0, 5))"
        assert browser.ask(column) == ["50.50", "52.50", "54.50", "56.50"]
        costs = f"{rows}.map((row) => [row.cells[6].textContent, row.cells[7].textContent])"
        assert browser.ask(costs) == [
            ["51.0 k", "500 kB"], ["51.0 k", "2.50 MB"], ["51.0 k", "4.50 MB"], ["–", "–"],
        ]  # fmt: skip
        browser.ask("document.querySelectorAll('#rows th button')[7].click()")
        assert browser.ask(column) == ["54.50", "52.50", "50.50", "56.50"]
        browser.ask("document.querySelectorAll('#rows th button')[3].click()")
        assert browser.ask(column) == ["56.50", "54.50", "52.50", "50.50"]
        browser.ask("filter.value = 'PROTO beats'; filter.dispatchEvent(new Event('input'))")
        assert browser.ask(column) == ["56.50"]
        assert browser.errors == []
    finally:
        browser.close()


def test_without_draws_there_are_no_intervals(results: Path, tmp_path: Path) -> None:
    assert run(results, "--out", tmp_path / "report.html", "--draws", 0).exit_code == 0
    assert all(row["interval"] is None for row in data_of(tmp_path / "report.html")["rows"])


def test_bad_input_is_one_line(results: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ([tmp_path / "none"], "no results at"),
        ([results, "--reference", "unmuet"], "unmute"),
        ([results, "--out", results], "is a folder; name a file in it"),
    ):
        done = run(*arguments, *([] if "--out" in arguments else ["--out", tmp_path / "page.html"]))
        assert done.exit_code == 2, done.output
        assert said in done.stderr
        assert not (tmp_path / "page.html").exists()
