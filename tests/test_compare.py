"""Results side by side: what a cell, a rank, a win and a difference are."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.errors import InputError, MissingError
from featcache.heads.report.bootstrap import weighted_map
from featcache.heads.report.compare import compare
from featcache.heads.report.formats import latex, markdown
from featcache.heads.report.metrics import mean_average_precision
from featcache.heads.report.published import published
from featcache.heads.report.ranking import ranks, wins
from featcache.heads.report.results import RESULTS, append_result, read_results
from featcache.heads.report.significance import differences, holm
from featcache.heads.report.summary import Cell, cells
from featcache.heads.report.tables import difference_grid, score_grid

Add = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """A function that writes a result with test scores of a given skill."""

    def add(
        value: float,
        *,
        encoder: str = "eat",
        dataset: str = "urban",
        head: str = "linear",
        seed: int = 0,
        fold: str | None = None,
        skill: float | None = None,
        **more: Any,
    ) -> None:
        run = more.pop("run", f"{encoder}-{dataset}-{head}-{seed}-{fold}")
        files = {}
        if skill is not None:
            random = np.random.default_rng(1)
            targets = (random.random((80, 3)) < 0.4).astype(np.uint8)
            noise = np.random.default_rng(seed + 7).standard_normal((80, 3))
            ids = np.array([f"c{index}" for index in range(80)])
            np.savez(tmp_path / f"{run}.npz", ids=ids, logits=skill * targets + noise, targets=targets)
            files["scores"] = f"{run}.npz"
        scores = {"mAP": value}
        line = {
            "run": run, "encoder": encoder, "cache": {"dtype": "float16"}, "dataset": dataset,
            "metric": "mAP", "head": head, "options": {}, "layer": 12, "last_layer": True, "seed": seed,
            "fold": fold, "test": scores, "valid": scores, "files": files, "epoch": 1, "seconds": 1.0, **more,
        }  # fmt: skip
        append_result(tmp_path, line)

    return add


def test_seeds_become_mean_and_spread(add: Add, tmp_path: Path) -> None:
    for seed, value in enumerate([0.5, 0.6, 0.7]):
        add(value, seed=seed)
    (cell,) = cells(read_results([tmp_path]))
    assert (cell.mean, cell.sd) == (pytest.approx(0.6), pytest.approx(0.1))
    assert cell.text() == "60.00 ± 10.00"


def test_folds_are_averaged_first_and_the_spread_is_over_folds(add: Add, tmp_path: Path) -> None:
    for fold, values in {"1": [0.5, 0.7], "2": [0.8, 0.8]}.items():
        for seed, value in enumerate(values):
            add(value, seed=seed, fold=fold)
    (cell,) = cells(read_results([tmp_path]))
    assert cell.mean == pytest.approx(0.7)
    assert cell.sd == pytest.approx(np.std([0.6, 0.8], ddof=1))


def test_options_layer_and_storage_make_cells_of_their_own(add: Add, tmp_path: Path) -> None:
    add(0.5, head="protobin")
    add(0.5, head="protobin", seed=1, options={"per_class": 5})
    add(0.5, head="protobin", seed=2, layer=6, last_layer=False)
    add(0.5, head="protobin", seed=3, cache={"dtype": "int8"})
    names = [(cell.encoder, cell.head) for cell in cells(read_results([tmp_path]))]
    assert names == [
        ("eat", "protobin"), ("eat", "protobin[per_class=5]"), ("eat", "protobin@6"),
        ("eat (int8)", "protobin"),
    ]  # fmt: skip


def made(encoder: str, head: str, dataset: str, mean: float, sd: float | None = 0.01) -> Cell:
    return Cell(encoder=encoder, dataset=dataset, head=head, metric="mAP", split="test", mean=mean, sd=sd,
                runs=5, folds=1, results=())  # fmt: skip


def test_encoders_are_ranked_over_the_data_sets_that_all_have() -> None:
    found = ranks([
        made("a", "linear", "x", 0.9), made("b", "linear", "x", 0.5), made("b", "linear", "y", 0.99),
        made("a", "proto", "x", 0.5), made("b", "proto", "x", 0.6),
    ])  # fmt: skip
    assert found.datasets == {"linear": ["x"], "proto": ["x"]}
    assert found.rank.tolist() == [[1, 2], [2, 1]]


def test_a_win_is_more_than_the_larger_of_the_two_spreads() -> None:
    found = wins([
        made("a", "one", "x", 0.60), made("a", "two", "x", 0.62, sd=0.03),
        made("a", "one", "y", 0.60), made("a", "two", "y", 0.64, sd=0.03),
        made("b", "one", "x", 0.90),
    ], "head")  # fmt: skip
    assert found.names == ["one", "two"]
    assert found.count.tolist() == [[0, 0], [1, 0]]
    assert found.compared.tolist() == [[0, 2], [2, 0]]


def test_a_single_run_has_no_spread_is_compared_with_nothing_and_wins_nothing(
    add: Add, tmp_path: Path
) -> None:
    add(0.2, head="linear")
    add(0.9, head="protobin")
    found = cells(read_results([tmp_path]))
    assert [cell.sd for cell in found] == [None, None]
    assert not wins(found, "head").count.any()
    assert not wins(found, "head").compared.any()
    grid = score_grid(found, ())
    assert grid.rows[1][2].text == "90.00 (n=1)"
    assert "n=1: one run, no spread, wins nothing." in grid.note
    assert not found[1].beats(made("eat", "linear", "urban", 0.2))
    assert not made("eat", "linear", "urban", 0.99).beats(found[0])


def test_what_the_spread_is_over_stands_under_the_table(add: Add, tmp_path: Path) -> None:
    for seed in range(2):
        add(0.5 + seed / 10, seed=seed)
    assert (
        "± is the standard deviation over seeds (n)." in score_grid(cells(read_results([tmp_path])), ()).note
    )
    for fold in "12":
        add(0.5, fold=fold, dataset="esc50")
    grid = score_grid(cells(read_results([tmp_path])), ())
    assert [entry.text for entry in grid.rows[0][2:]] == ["55.00 ± 7.07 (n=2)", "50.00 ± 0.00 (2 folds)"]
    assert "over seeds (n); or over folds, each fold's mean over its seeds." in grid.note


def test_best_is_bold_second_underlined_and_a_papers_number_marked_and_unranked() -> None:
    own = [
        made("eat", "linear", "urban", 0.5),
        made("eat", "mhca", "urban", 0.6),
        made("eat", "ep", "urban", 0.4),
    ]
    text = markdown(score_grid(own, published("unmute")))
    assert "| eat | mhca | **60.00 ± 1.00 (n=5)** |" in text
    assert "| eat | linear | <u>50.00 ± 1.00 (n=5)</u> |" in text
    assert "| eat | ep | 40.00 ± 1.00 (n=5) |" in text
    assert "| eat† | protobin | 89.24† |" in text
    assert "the paper's own numbers (arXiv 2509.24901), not measured here" in text
    assert r"\textbf{60.00 $\pm$ 1.00 (n=5)}" in latex(score_grid(own, ()))


def test_the_reference_holds_the_papers_means() -> None:
    own = {(n.encoder, n.dataset, n.head): n.value for n in published("unmute")}
    sets = ("as20k", "fsd50k", "desed", "spass", "urban")
    encoders = ("audiomae", "asit", "dasheng", "beats", "eat", "sslam")
    gains = [own[e, d, "protobin"] - own[e, d, "linear"] for e in encoders for d in sets]
    assert 100 * np.mean(gains) == pytest.approx(14.41, abs=0.005)  # the paper's headline
    assert own["eat", "esc50", "protobin"] == pytest.approx(0.8683)


def test_weighted_map_is_the_map_of_the_redrawn_clips() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((40, 4)) < 0.3).astype(np.uint8)
    scores = random.standard_normal((40, 4)).round(1)  # with ties
    weights = random.multinomial(40, np.full(40, 1 / 40), size=20)
    for weight, value in zip(weights, weighted_map(labels, scores, weights), strict=True):
        rows = np.repeat(np.arange(40), weight)
        assert value == pytest.approx(mean_average_precision(labels[rows], scores[rows]))


def test_a_clear_difference_is_significant_and_none_is_not(add: Add, tmp_path: Path) -> None:
    add(0.9, head="protobin", skill=3.0, seed=0)
    add(0.5, head="linear", skill=0.2, seed=1)
    add(0.89, head="mhca", skill=3.0, seed=2)
    gaps = {gap.other: gap for gap in differences(cells(read_results([tmp_path])), draws=200)}
    assert gaps["linear"].best == "protobin"
    assert gaps["linear"].p < 0.05 < gaps["mhca"].p
    assert gaps["linear"].low > 0
    assert gaps["mhca"].low < 0 < gaps["mhca"].high


def test_a_head_that_cannot_be_compared_is_named(add: Add, tmp_path: Path) -> None:
    for head in ("protobin", "linear", "mhca"):
        add(0.9 if head == "protobin" else 0.5, head=head, skill=1.0)
    add(0.5, head="linear", encoder="beats", skill=1.0)  # alone with its encoder
    own = compare(tmp_path, draws=20).grids[-1]
    assert len(own.rows) == 2
    assert "Not compared" not in own.note
    (scores,) = tmp_path.glob("eat-urban-mhca-*.npz")
    with np.load(scores) as arrays:
        np.savez(scores, **{**arrays, "ids": [f"other-{own}" for own in arrays["ids"]]})
    own = compare(tmp_path, draws=20).grids[-1]
    assert [row[3].text for row in own.rows] == ["linear"]
    assert own.note.endswith("others than the best head's or not saved: eat mhca on urban.")


def test_recordings_named_by_one_scores_file_are_drawn_whole_for_all_heads(add: Add, tmp_path: Path) -> None:
    add(0.9, head="protobin", skill=3.0, seed=0)
    add(0.5, head="linear", skill=0.2, seed=1)
    (by_clip,) = differences(cells(read_results([tmp_path])), draws=200)
    scores = tmp_path / "eat-urban-linear-1-None.npz"
    with np.load(scores) as arrays:
        np.savez(scores, **arrays, groups=np.arange(80) // 20)
    (by_recording,) = differences(cells(read_results([tmp_path])), draws=200)
    assert (by_clip.by, by_recording.by) == ("clip", "recording")
    assert (by_clip.low, by_clip.high) != (by_recording.low, by_recording.high)
    assert "over test recordings" in difference_grid([by_recording]).note


def test_holm_never_falls_and_never_exceeds_one() -> None:
    assert holm([0.5, 0.6, 0.01]) == [1.0, 1.0, 0.03]
    assert holm([]) == []


def test_the_command_prints_tables_and_writes_files(add: Add, tmp_path: Path) -> None:
    for encoder, base in (("eat", 0.5), ("beats", 0.6)):
        for head, gain in (("linear", 0.0), ("protobin", 0.2)):
            for seed in range(2):
                add(base + gain + 0.01 * seed, encoder=encoder, head=head, seed=seed, skill=1 + gain)
    out = tmp_path / "out"
    words = ["compare", str(tmp_path), "--out", str(out), "--reference", "unmute", "--draws", "50"]
    done = CliRunner().invoke(featcache, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "**80.50 ± 0.71 (n=2)**" in done.stdout
    assert "| beats | 1 (60.50) | 1 (80.50) |" in done.stdout
    names = {path.name for path in out.iterdir()}
    pictures = {
        f"{stem}.{kind}" for stem in ("wins-heads", "wins-encoders", "ranks") for kind in ("png", "svg")
    }
    assert names == {"compare.md", "compare.tex", "compare.csv"} | pictures
    rows = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
    assert [row["source"] for row in rows[:4]] == ["measured"] * 4
    assert all("arXiv" in row["source"] for row in rows[4:])


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no results at"):
        compare([tmp_path / "nothing"])
    (tmp_path / RESULTS).write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="line 1 is not a result"):
        compare([tmp_path])
    (tmp_path / RESULTS).write_text("")
    with pytest.raises(InputError, match="no results in"):
        compare([tmp_path])
    with pytest.raises(InputError, match="no reference named 'unmut'"):
        published("unmut")


def test_a_line_torn_by_a_crash_is_passed_over_and_the_next_starts_anew(add: Add, tmp_path: Path) -> None:
    add(0.5, seed=0)
    with (tmp_path / RESULTS).open("a") as file:
        file.write('{"run": "torn", "he')
    add(0.7, seed=1)
    assert [result["seed"] for result in read_results([tmp_path])] == [0, 1]


def test_a_run_listed_twice_counts_once(add: Add, tmp_path: Path) -> None:
    add(0.5)
    add(0.7)
    (result,) = read_results([tmp_path])
    assert result.value == 0.7


def test_pictures_name_heads_of_users_without_their_folders_unless_two_would_be_one() -> None:
    from featcache.heads.report.plots import _short

    assert _short(["linear", "/long/way/my_head.py:MyHead[a=b/c]"]) == ["linear", "my_head.py:MyHead[a=b/c]"]
    assert _short(["one/my_head.py:MyHead", "two/my_head.py:MyHead"]) == [
        "one/my_head.py:MyHead", "two/my_head.py:MyHead",
    ]  # fmt: skip


def test_a_terminal_shows_no_tags(add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(0.5)
    add(0.4, head="protobin")
    assert "<u>40.00 (n=1)</u>" in markdown(score_grid(cells(read_results([tmp_path])), []))
    words = ["compare", str(tmp_path), "--out", str(tmp_path / "out"), "--draws", "0"]
    assert "<u>" in CliRunner().invoke(featcache, words).stdout  # into a file: Markdown
    monkeypatch.setattr("featcache.cli.compare.on_terminal", lambda: True)
    shown = CliRunner().invoke(featcache, words).stdout
    assert "_40.00 (n=1)_" in shown
    assert "<u>" not in shown


def test_a_reference_that_has_none_of_our_data_sets_says_so(add: Add, tmp_path: Path) -> None:
    add(0.5, dataset="mine")
    words = [
        "compare",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--reference",
        "unmute",
        "--draws",
        "0",
    ]
    done = CliRunner().invoke(featcache, words)
    assert "unmute has numbers of" in done.stderr
    assert "and none of mine" in done.stderr
    add(0.5, dataset=published("unmute")[0].dataset)
    assert "and none of" not in CliRunner().invoke(featcache, words).stderr
