"""What is a row of a comparison: nothing is averaged that is not a seed; and what is doubted in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from featcache.heads import HEADS
from featcache.heads.probing.probe import probe
from featcache.heads.report.compare import compare, figures
from featcache.heads.report.formats import csv_text, latex, markdown
from featcache.heads.report.ranking import ranks
from featcache.heads.report.results import Result, read_results
from featcache.heads.report.settings import MATCHING
from featcache.heads.report.significance import differences
from featcache.heads.report.summary import cells
from featcache.heads.report.tables import score_grid
from featcache.heads.report.terminal import summary_lines

ROOT = Path(__file__).parents[1]
SEARCH = {"sobol": 25, "tpe": 25, "width": 5, "seed": 0}


def line(value: float, **more: Any) -> Result:
    """A result as probe writes it, without its files; ``training`` and ``protocol`` give what differs."""
    training = {"epochs": 30, "batch_size": 128, "seed": 0, "patience": None} | more.pop("training", {})
    protocol = {"preset": "unmute", "search": None, "fixed": {}} | more.pop("protocol", {})
    whole = {
        "encoder": "eat",
        "cache": {"digest": "c0ffee00", "fingerprint": {"clip_seconds": 5}, "dtype": "float16"},
        "dataset": "bom", "manifest": {"path": "/a/bom.csv", "digest": "aaaaaaaa00"}, "fold": None,
        "task": "multi-label", "metric": "mAP", "classes": 3, "clips": {"train": 8, "valid": 1, "test": 2},
        "head": "linear", "options": {}, "layer": 11, "last_layer": True, "loss": "asymmetric", "lr": 3e-3,
        "weight_decay": 1e-4, "seed": 0, "training": training, "protocol": protocol,
        "valid": {"mAP": value}, "test": {"mAP": value}, "epoch": 1, "seconds": 1.0, "files": {},
        "versions": {"featcache": "0.1.0"}, "device": "cpu", **more,
    }  # fmt: skip
    return Result(json.loads(json.dumps(whole)), Path())


def rows(*lines: Result) -> dict[str, str]:
    return {cell.head: f"{cell.text()} {cell.count}" for cell in cells(lines)}


def test_runs_of_other_rates_epochs_and_batches_are_rows_of_their_own_named_by_what_differs() -> None:
    found = rows(
        line(0.375, training={"epochs": 5}),
        line(0.725, training={"epochs": 5}, lr=0.03),
        line(0.2, training={"epochs": 5, "batch_size": 32}, lr=0.03),
    )
    assert found == {
        "linear [lr 0.003, batch 128]": "37.50 n=1",
        "linear [lr 0.03, batch 128]": "72.50 n=1",
        "linear [lr 0.03, batch 32]": "20.00 n=1",
    }


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"loss": "cross-entropy"}, "loss cross-entropy"),
        ({"weight_decay": 0.2}, "decay 0.2"),
        ({"training": {"patience": 3}}, "patience 3"),
        ({"training": {"some_new_setting": "x"}}, "some_new_setting x"),
        ({"protocol": {"preset": "fast"}}, "preset fast"),
        ({"lr": 0.0030001}, "lr 0.003 #"),  # printed alike, and still apart
    ],
)
def test_each_setting_parts_rows(more: dict[str, Any], name: str) -> None:
    first, second = rows(line(0.1), line(0.2, **more))
    assert first != second
    assert second.startswith(f"linear [{name}" if "#" not in name else "linear [lr 0.003] #")


def test_the_form_of_the_match_parts_rows_of_heads_that_match_and_of_no_others() -> None:
    for head, count in (("protobin", 2), ("linear", 1), ("mine.py:Mine", 1)):
        assert (
            len(rows(line(0.1, head=head, match="native"), line(0.2, head=head, seed=1, match="triton")))
            == count
        )


def test_the_heads_that_match_are_the_prototypical_ones_and_cgp() -> None:
    own = {name for name, spec in HEADS.items() if spec.build.rates == "prototypes"}
    assert set(MATCHING) == own | {"cgp"}
    assert (
        len(rows(line(0.1, head="cgp", match="native"), line(0.2, head="cgp", match="blocks", seed=1))) == 2
    )


def test_seeds_of_every_kind_versions_and_devices_part_no_rows() -> None:
    lines = [
        line(0.1), line(0.2, seed=1), line(0.3, seed=1, training={"seed": 1}),
        line(0.4, seed=2, versions={"featcache": "0.2.0"}, device="cuda: H100"),
    ]  # fmt: skip
    assert rows(*lines) == {"linear": "25.00 ± 12.91 n=4"}
    note = score_grid(cells(lines), ()).note
    assert "Of several versions of featcache (0.1.0; 0.2.0): eat linear on bom." in note
    assert "Of several devices (cpu; cuda: H100): eat linear on bom." in note


def test_the_same_seed_on_another_version_is_no_further_seed() -> None:
    found = cells([line(0.1, versions={"featcache": "0.1.0"}), line(0.3, versions={"featcache": "0.2.0"})])
    assert [(cell.text(), cell.sd, cell.runs) for cell in found] == [("30.00", None, 1)]
    assert "Same seed run again, the last counts: eat linear on bom." in score_grid(found, ()).note


def test_what_a_search_chose_parts_no_folds_but_how_it_searched_parts_rows() -> None:
    search = {"search": SEARCH, "fixed": {"lr": None, "weight_decay": None}}
    folds = [line(0.5, fold=str(k), lr=10**-k, weight_decay=10**-k, protocol=search,
                  clips={"train": 8 - k, "valid": 1, "test": 2 + k}) for k in range(1, 4)]  # fmt: skip
    assert rows(*folds) == {"linear": "50.00 ± 0.00 3 folds"}
    again = line(0.4, fold="1", lr=0.7, protocol={"search": SEARCH | {"seed": 9}, "fixed": {}})
    assert rows(*folds, again) == {"linear": "48.33 ± 2.89 3 folds"}
    partly = line(0.9, fold="1", protocol={"search": SEARCH, "fixed": {"lr": 3e-3}})
    assert set(rows(*folds, partly)) == {"linear [search 25+25]", "linear [search 25+25 of weight_decay]"}
    # not searched: a rate of its own for each fold is no seed
    assert len(rows(*(line(0.5, fold=str(k), lr=10**-k) for k in range(1, 4)))) == 3


def test_two_manifests_of_one_name_are_two_columns() -> None:
    other = {"path": "/b/bom.csv", "digest": "bbbbbbbb00"}
    grid = score_grid(cells([line(0.1), line(0.9, manifest=other, clips={"train": 80})]), ())
    assert grid.header[2:] == ["bom [manifest aaaaaa] (mAP)", "bom [manifest bbbbbb] (mAP)"]
    assert [entry.text for entry in grid.rows[0]] == ["eat", "linear", "10.00 (n=1)", "90.00 (n=1)"]


def test_folds_and_one_split_and_fewer_clips_are_columns_of_their_own() -> None:
    found = cells([line(0.1), line(0.2, fold="1"), line(0.3, clips={"train": 7, "valid": 1, "test": 2})])
    assert len({cell.dataset for cell in found}) == 3


def test_caches_of_one_encoder_are_told_apart_by_the_fingerprint() -> None:
    cache = {"digest": "beef0000", "fingerprint": {"clip_seconds": 10}, "dtype": "float16"}
    found = cells([line(0.1), line(0.2, cache=cache)])
    assert [cell.encoder for cell in found] == ["eat [clip_seconds 5]", "eat [clip_seconds 10]"]
    assert cells([line(0.1), line(0.2, cache={"digest": "beef0000", "dtype": "float16"})])[0].encoder != "eat"


def test_what_differs_between_data_sets_alone_names_nothing() -> None:
    cache = {"digest": "beef0000", "fingerprint": {"clip_seconds": 10}, "dtype": "float16"}
    far = line(0.2, dataset="esc", cache=cache, loss="cross-entropy", training={"epochs": 400})
    assert {(cell.encoder, cell.head) for cell in cells([line(0.1), far])} == {("eat", "linear")}


def test_encoders_trained_differently_are_not_ranked_under_one_head() -> None:
    found = cells([line(0.1), line(0.2, encoder="beats", training={"epochs": 5})])
    assert [cell.head for cell in found] == ["linear [epochs 30]", "linear [epochs 5]"]


def test_a_quick_look_and_then_a_search_do_not_mix(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    cache, manifest = make_tokens()
    for more in ({"epochs": 1, "seeds": 1}, {"search": True, "trials": 2, "seeds": 2, "epochs": 2}):
        probe(
            cache,
            manifest,
            heads=["linear"],
            out=tmp_path / "out",
            batch_size=16,
            solved=False,
            device="cpu",
            **more,
        )
    found = cells(read_results([tmp_path / "out"]))
    assert [(cell.head, cell.runs) for cell in found] == [
        ("linear [option norm batch, epochs 1, no search]", 1),
        ("linear [epochs 2, search 1+1 with norm+standardize]", 2),
    ]
    (scores, gaps) = compare(tmp_path / "out", draws=50).grids
    assert len(scores.rows) == 2
    assert len(gaps.rows) == 1


@pytest.mark.parametrize(("page", "count"), [("heads", 29), ("storage", 24)])
def test_lines_of_earlier_versions_still_read(page: str, count: int) -> None:
    lines = read_results([ROOT / f"docs/results/{page}.jsonl"])
    found = cells(lines)
    assert len(found) == count
    assert all(cell.runs == 5 for cell in found)


def test_a_line_of_the_fewest_fields_still_reads() -> None:
    newer = ("manifest", "task", "classes", "clips", "loss", "lr", "weight_decay", "training", "protocol",
             "files", "versions", "device")  # fmt: skip
    bare = Result({name: value for name, value in line(0.5).line.items() if name not in newer}, Path())
    (cell,) = cells([bare])
    assert (cell.encoder, cell.dataset, cell.head) == ("eat", "bom", "linear")
    assert differences([cell]) == []
    assert score_grid([cell], ()).rows[0][2].text == "50.00 (n=1)"


def test_heads_short_of_their_plateau_or_at_an_edge_are_marked_and_unknown_ones_are_not() -> None:
    found = cells([
        line(0.1), line(0.2, head="mhca", plateau=False, kept_last=True), line(0.3, head="ep", at_edge=True),
        line(0.4, head="proto", plateau=True, at_edge=False, kept_last=True),
    ])  # fmt: skip
    grid = score_grid(found, ())
    assert [row[2].text for row in grid.rows] == [
        "10.00 (n=1)",
        "20.00‡ (n=1)",
        "30.00‡ (n=1)",
        "40.00 (n=1)",
    ]
    assert "not at its plateau: eat mhca on bom; more steps (`max_steps`) mend that" in grid.note
    assert "searched range: eat ep on bom; a wider range (`lr_range`) mends that." in grid.note
    assert r"$^\ddagger$" in latex(grid)
    assert ",plateau\n" in csv_text(found, ())


def test_a_head_is_called_still_rising_only_where_its_best_epoch_was_chosen() -> None:
    for valid, select, rising in ((100, "best", True), (99, "best", False), (100, "last", False)):
        clips = {"train": 8, "valid": valid, "test": 2}
        own = line(0.2, plateau=False, kept_last=True, training={"select": select}, clips=clips)
        assert ("so were still rising" in score_grid(cells([own]), ()).note) is rising


def test_a_fixed_number_of_epochs_has_a_mark_of_its_own_in_every_table(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    made, heads = make_tokens(), ["linear", "centroid"]
    short = {"heads": heads, "out": tmp_path, "batch_size": 16, "device": "cpu", "seeds": 1, "solved": False}
    probe(*made, **short, epochs=2)
    probe(*made, **short, max_steps=4)
    found = read_results([tmp_path])
    table = score_grid(cells(found), ())
    marked = [row[2].text.strip("0123456789. ()n=") for row in table.rows]
    assert sorted(marked) == ["", "§", "‡"]
    legend = "§ trained for a fixed number of epochs: nothing says whether it would have got better"
    assert legend in table.note
    assert r"$^\S$" in latex(table)
    printed = summary_lines(found)
    assert sum("§ " in line or "‡ " in line for line in printed[:4]) == 2
    assert [line.split(":")[0] for line in printed[4:]] == [
        "‡ not at its plateau",
        "§ trained for a fixed number of epochs",
    ]
    assert "§" not in score_grid(cells([line(0.1)]), ()).note


def test_splits_that_are_drawn_with_seeds_are_seeds_and_given_ones_are_not(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    cache, manifest = make_tokens(60)
    bare = tmp_path / "other" / manifest.name
    bare.parent.mkdir()
    table = [row.split(",") for row in manifest.read_text().splitlines()]
    bare.write_text("\n".join(",".join(row[:3]) for row in table))
    short = {"heads": ["linear", "centroid"], "epochs": 1, "batch_size": 16, "seeds": 1, "solved": False}
    for seed in (0, 1, 2):
        probe(cache, bare, seed=seed, out=tmp_path, **short)
    results = read_results([tmp_path])
    assert len({json.dumps(result["clips"]) for result in results}) > 1
    assert {result["draw"] for result in results} == {0, 1, 2}
    found = [(cell.dataset, cell.count, cell.repeats) for cell in cells(results)]
    assert found == [("tokens", "n=3", 0), ("tokens", "n=3", 0)]
    (trained, _) = probe(cache, manifest, out=tmp_path, **short)
    assert trained["draw"] is None
    assert len({cell.dataset for cell in cells(read_results([tmp_path]))}) == 2


def test_splits_drawn_by_several_seeds_are_one_row_and_other_clips_are_not() -> None:
    """A stratified draw that keeps recordings whole may take a clip more or less."""
    drawn = [
        line(0.3, clips={"train": 80 - n, "valid": 8 + n, "test": 20}, training={"seed": n}, seed=n)
        for n in (0, 1)
    ]
    assert rows(*drawn) == {"linear": "30.00 ± 0.00 n=2"}
    assert len(cells([*drawn, line(0.3, clips={"train": 79, "valid": 8, "test": 20}, seed=2)])) == 2


def solved(value: float, features: str, **more: Any) -> Result:
    own = {
        "options": {"features": features},
        "solved": True,
        "training": {},
        "lr": None,
        "chosen": {"clips": 8},
    }
    return line(value, head="logreg", **own | more)


def test_solved_heads_stand_under_a_rule_and_unmask_the_undertrained() -> None:
    found = cells([solved(0.8, "mean"), line(0.7), line(0.6, head="mhca"), line(0.6, head="linear-mean")])
    grid = score_grid(found, ())
    assert [row[1].text for row in grid.rows] == ["linear", "mhca", "linear-mean", "logreg[features=mean]"]
    assert "| eat | linear-mean | 60.00 (n=1) |\n| *solved* |  |  |\n| eat | logreg" in markdown(grid)
    assert "\\midrule\neat & logreg" in latex(grid)
    assert "Undertrained: eat linear on bom, 10.0 points below logreg[features=mean]" in grid.note
    assert "Undertrained: eat linear-mean on bom, 20.0 points below logreg[features=mean]" in grid.note
    assert "Undertrained" not in score_grid(cells([solved(0.8, "mean"), line(0.785)]), ()).note


def test_a_linear_head_is_held_against_what_was_fitted_on_its_own_clips_alone() -> None:
    """Where few clips are held out, logreg is fitted on those as well: what it gains is no training."""
    for alone, undertrained in ((0.71, False), (0.75, True)):
        twin = solved(0.8, "mean", chosen={"clips": 9, "train_alone": alone})
        note = score_grid(cells([twin, line(0.7)]), ()).note
        assert ("Undertrained: eat linear on bom, 5.0 points" in note) is undertrained
        assert "Fitted on train and valid, where trained heads learn from train alone: eat logreg" in note
    older = solved(0.8, "mean", chosen={"clips": 9})  # a line that does not say
    assert "Undertrained" not in score_grid(cells([older, line(0.7)]), ()).note


def test_equal_names_and_labels_of_other_audio_are_another_data_set() -> None:
    given = {"path": "/a/bom.csv", "digest": "aaaaaaaa00"}
    raw, clean = ({**given, "audio": audio} for audio in ("raw", "clean"))
    found = cells([line(0.1, manifest=raw), line(0.9, manifest=clean, seed=1)])
    assert [(cell.dataset, cell.runs) for cell in found] == [("bom [audio raw]", 1), ("bom [audio clean]", 1)]
    older = line(0.2, manifest=given, seed=2)  # a line from before audio was named
    assert [(cell.dataset, cell.runs) for cell in cells([line(0.1, manifest=raw), older])] == [("bom", 2)]
    assert len(cells([line(0.1, manifest=raw), line(0.9, manifest=clean, seed=1), older])) == 3


def test_tokens_that_were_stored_in_less_are_another_encoder() -> None:
    cache = {"digest": "c0ffee00", "fingerprint": {"clip_seconds": 5}, "dtype": "float16"}
    found = cells(
        [line(0.1, cache={**cache, "converted": []}), line(0.2, cache={**cache, "converted": ["int4"]})]
    )
    assert [cell.encoder for cell in found] == ["eat [dtype float16]", "eat [dtype float16 from int4]"]


def test_a_linear_head_is_held_against_what_is_solved_on_its_own_features_and_shots() -> None:
    fingerprint = {"settings": {"has_cls": True}}
    with_cls = {"cache": {"digest": "c0ffee00", "dtype": "float16", "fingerprint": fingerprint}}
    for trained, twin in (
        ([line(0.7)], solved(0.9, "tfmean")),  # linear reads the mean of this encoder
        ([line(0.7, **with_cls)], solved(0.9, "mean", **with_cls)),  # and here the cls
        ([line(0.7, shots=1)], solved(0.9, "mean", shots=50)),
        ([line(0.7, layer=3)], solved(0.9, "mean")),
        ([line(0.7, fold="1")], solved(0.9, "mean", fold="2")),
    ):
        assert "Undertrained" not in score_grid(cells([*trained, twin]), ()).note
    both = line(0.7, head="linearc")  # without a cls the mean twice; with one, of both nothing is solved
    assert "linearc on bom, 20.0 points" in score_grid(cells([both, solved(0.9, "mean")]), ()).note
    both = line(0.7, head="linearc", **with_cls)
    assert "Undertrained" not in score_grid(cells([both, solved(0.9, "mean", **with_cls)]), ()).note
    own = solved(0.9, "cls", **with_cls)
    assert "20.0 points below logreg" in score_grid(cells([line(0.7, **with_cls), own]), ()).note


def test_a_head_without_a_score_or_without_a_fold_is_neither_best_nor_a_winner() -> None:
    lines = [line(value, fold=fold) for fold, value in zip("12", (0.3, 0.4), strict=True)]
    part = [line(0.9, head="mhca", fold="1", seed=seed) for seed in (0, 1)]
    none = [line(float("nan"), head="ep", fold=fold) for fold in "12"]
    found = cells([*lines, *part, *none])
    grid = score_grid(found, ())
    assert "| eat | mhca | 90.00 ± 0.00 (n=2) |" in markdown(grid)
    assert "| eat | ep | – (2 folds) |" in markdown(grid)
    assert "No score, for no class of the test split has a clip: eat ep on bom." in grid.note
    assert "Without fold 2, so neither best nor compared: eat mhca on bom." in grid.note
    assert not any(one.beats(other) for one in found for other in found)


def test_the_luck_of_training_is_told_beside_that_of_folds() -> None:
    single = [line(0.5, head="mhca", fold=fold) for fold in "12"]
    values = {("1", 0): 0.3, ("1", 1): 0.32, ("2", 0): 0.5, ("2", 1): 0.56}
    several = [line(value, fold=fold, seed=seed) for (fold, seed), value in values.items()]
    found = cells([*single, *several])
    titles = [title for name, title, _ in figures(found, ranks(found)) if name == "wins-heads"]
    assert titles == ["Wins of heads by more than one sd (over folds), of all settings with several runs"]
    note = score_grid(found, ()).note
    assert "One seed a fold, so the luck of training is in no number: eat mhca on bom." in note
    assert "over the seeds of a fold, on average: eat linear on bom 2.83." in note
