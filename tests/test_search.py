"""A search: repeatable, resumable, blind to the test labels, and the same on several ranks."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from featcache.errors import Interrupted
from featcache.heads.checkpoint import load
from featcache.heads.data.tasks import Part, Sealed
from featcache.heads.probing.presets import PRESETS
from featcache.heads.probing.probe import probe
from featcache.heads.probing.search import TRIALS, SearchPlan, rungs
from featcache.heads.probing.study import Study
from featcache.heads.report.results import Result, read_results
from featcache.heads.report.summary import cells
from featcache.heads.training.resume import Saver
from featcache.heads.training.trial import Outcome, Trial
from featcache.jsonl import records

Make = Callable[..., tuple[Path, Path]]
SEARCH: dict[str, Any] = {
    "search": True,
    "trials": 8,
    "seeds": 2,
    "epochs": 6,
    "batch_size": 16,
    "solved": False,
}
HEADS = ["linear", "protobin:per_class=3"]


@pytest.fixture
def make_tokens(make_tokens: Make) -> Make:
    """Two steps an epoch."""
    return partial(make_tokens, 64)


def numbers(results: Sequence[Result]) -> list[Any]:
    return [(result["lr"], result["seed"], result["valid_scores"], result["test"]) for result in results]


def trials(out: Path) -> list[dict[str, Any]]:
    return [{**line, "seconds": 0, "check": ""} for line in records(out / TRIALS)]


def test_a_search_finds_settings_and_lists_its_trials(make_tokens: Make, tmp_path: Path) -> None:
    results = probe(*make_tokens(), heads=HEADS, out=tmp_path, **SEARCH)
    assert [(result["head"], result["seed"]) for result in results] == [
        ("linear", 0), ("linear", 1), ("protobin", 0), ("protobin", 1)
    ]  # fmt: skip
    listed = trials(tmp_path)
    assert len([line for line in listed if line["number"] < 8]) == 2 * 8
    for head, low, high in (("linear", 1e-4, 5e-2), ("protobin", 2e-3, 8e-2)):
        own = [line for line in listed if line["head"] == head]
        within = [line for line in own if line["number"] < 8]  # later ones lie beyond the range
        assert all(low <= line["lr"] <= high and 1e-5 <= line["weight_decay"] <= 5e-4 for line in within)
        done = [line for line in own if line["status"] == "done"]
        best = max(done, key=lambda line: max(line["scores"]))
        assert {result["lr"] for result in results if result["head"] == head} == {best["lr"]}
        assert any(line["status"] == "pruned" for line in own)


def test_the_same_search_twice_gives_the_same_numbers_bit_for_bit(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens()
    one, two = (probe(*made, heads=HEADS, out=tmp_path / name, **SEARCH) for name in ("one", "two"))
    assert numbers(one) == numbers(two)
    assert trials(tmp_path / "one") == trials(tmp_path / "two")


def test_a_given_learning_rate_is_not_searched(make_tokens: Make, tmp_path: Path) -> None:
    probe(*make_tokens(), heads=["linear"], out=tmp_path, lr=0.005, **SEARCH)
    listed = trials(tmp_path)
    assert {line["lr"] for line in listed} == {0.005}
    assert len({line["weight_decay"] for line in listed}) == 8


@pytest.mark.slow
def test_a_search_cut_off_anywhere_goes_on_to_the_same_numbers(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_tokens()
    whole = probe(*made, heads=HEADS, out=tmp_path / "whole", **SEARCH)
    monkeypatch.setattr(Saver, "save", _save_always)
    for killed_after in (1, 8, 16):
        out, ended = tmp_path / f"cut{killed_after}", [0]

        def watch(
            epoch: int,
            epochs: int,
            outcomes: Sequence[Outcome],
            ended: list[int] = ended,
            last: int = killed_after,
        ) -> None:
            ended[0] += 1
            if ended[0] == last:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted, match="the same command goes on"):
            probe(*made, heads=HEADS, out=out, watch=watch, **SEARCH)
        again = probe(*made, heads=HEADS, out=out, **SEARCH)
        assert numbers(again) == numbers(whole)
        assert trials(out) == trials(tmp_path / "whole")
        assert not list((out / "state").iterdir())


def _save_always(self: Saver) -> None:
    self._next = 0.0
    _save(self)


_save = Saver.save


def test_an_interrupted_probe_trains_only_the_epochs_that_are_left(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_tokens()
    monkeypatch.setattr(Saver, "save", _save_always)
    seen: list[int] = []

    def watch(epoch: int, epochs: int, outcomes: Sequence[Outcome]) -> None:
        seen.append(epoch)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        probe(
            *made,
            heads=["protobin"],
            out=tmp_path,
            epochs=6,
            batch_size=16,
            seeds=1,
            solved=False,
            watch=watch,
        )
    probe(
        *made, heads=["protobin"], out=tmp_path, epochs=6, batch_size=16, seeds=1, solved=False, watch=watch
    )
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_damaged_state_is_trained_over(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens()
    whole = probe(
        *made, heads=["linear"], out=tmp_path / "whole", epochs=4, batch_size=16, seeds=1, solved=False
    )

    def stop(epoch: int, epochs: int, outcomes: Sequence[Outcome]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        probe(
            *made,
            heads=["linear"],
            out=tmp_path / "cut",
            epochs=4,
            batch_size=16,
            seeds=1,
            solved=False,
            watch=stop,
        )
    (state,) = (tmp_path / "cut" / "state").iterdir()
    state.write_bytes(state.read_bytes()[:100])
    again = probe(
        *made, heads=["linear"], out=tmp_path / "cut", epochs=4, batch_size=16, seeds=1, solved=False
    )
    assert numbers(again) == numbers(whole)


def test_test_labels_are_looked_at_once_and_after_the_last_epoch(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    read = Sealed.open

    def opened(self: Sealed) -> Part:
        events.append("open")
        return read(self)

    def watch(epoch: int, epochs: int, outcomes: Sequence[Outcome]) -> None:
        events.append("epoch")

    monkeypatch.setattr(Sealed, "open", opened)
    probe(*make_tokens(), heads=HEADS, out=tmp_path, watch=watch, **SEARCH)
    assert events.count("open") == 1
    assert events[-1] == "open"


def test_poisoned_test_labels_change_nothing_but_the_test_score(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    poisoned = tmp_path / "poisoned" / manifest.name
    poisoned.parent.mkdir()
    lines = [line.split(",") for line in manifest.read_text().splitlines()]
    for fields in lines:
        if fields[3] == "test":
            fields[1] = "label1" if fields[1] == "label0" else "label0"
    poisoned.write_text("".join(",".join(fields) + "\n" for fields in lines))
    # The study is named after the manifest's digest: without that the proposals are the same.
    one = probe(
        cache,
        manifest,
        heads=HEADS,
        out=tmp_path / "one",
        lr=0.004,
        weight_decay=1e-4,
        seeds=2,
        epochs=4,
        solved=False,
    )
    two = probe(
        cache,
        poisoned,
        heads=HEADS,
        out=tmp_path / "two",
        lr=0.004,
        weight_decay=1e-4,
        seeds=2,
        epochs=4,
        solved=False,
    )
    for sound, other in zip(one, two, strict=True):
        assert sound["valid_scores"] == other["valid_scores"]
        assert sound["epoch"] == other["epoch"]
        assert sound["test"] != other["test"]


def test_sobol_trials_side_by_side_are_pruned_as_one_after_another() -> None:
    together, apart = _searched([16]), _searched([1] * 16)
    assert together == apart
    assert {status for _, status, _ in together} == {"done", "pruned"}


def _searched(rounds: Sequence[int]) -> list[tuple[dict[str, float], str, int]]:
    """A study over a made-up score: settings, status and epochs of each trial."""
    study, found = Study({"lr": (1e-4, 1e-1)}, sobol=16, seed=3, rungs=(2, 2)), []
    for count in rounds:
        first, settings = len(found), study.ask(count)
        running, scores = set(range(first, first + count)), {n: [] for n in range(first, first + count)}
        for epoch in range(1, 9):
            now = {n: -abs(settings[n - first]["lr"] - 0.01) * (1 + 1 / epoch) for n in running}
            for n, score in now.items():
                scores[n].append(score)
            running -= study.hear(epoch, now)
        for n, own in scores.items():
            status = "done" if n in running else "pruned"
            outcome = Outcome(trial=_trial(), status=status, scores=own, epoch=len(own))
            study.end(n, outcome)
            found.append((settings[n - first], status, len(own)))
    return found


def _trial() -> Trial:
    return Trial(head="linear", task=0, layer=1, lr=1, weight_decay=0, loss="bce")


def test_tpe_learns_from_the_trials_before_it() -> None:
    study = Study({"lr": (1e-4, 1e-1)}, sobol=16, seed=0)
    for number in range(32):
        (settings,) = study.ask(1)
        score = -abs(settings["lr"] - 0.01)
        study.end(number, Outcome(trial=_trial(), scores=[score], epoch=1))
        if number == 15:
            best = score
    later = [trial.values[0] for trial in study.study.trials[16:]]
    assert max(later) > best
    assert sum(later) / 16 > sum(trial.values[0] for trial in study.study.trials[:16]) / 16


def test_rounds_and_rungs() -> None:
    assert [len(numbers) for numbers in SearchPlan().rounds()] == [25, 5, 5, 5, 5, 5]
    assert rungs(30) == (6, 2)
    assert rungs(3) == (1, 2)


RANK = """
import json, torch
from featcache.heads import probe
torch.set_num_threads(1)
print(len(probe({cache!r}, {manifest!r}, heads={heads!r}, out={out!r}, distributed=True, **{settings!r})))
"""


@pytest.mark.slow
def test_two_ranks_find_what_one_process_finds(
    make_tokens: Make, tmp_path: Path, warm_process: Callable[..., Any]
) -> None:
    cache, manifest = make_tokens()
    alone = probe(cache, manifest, heads=HEADS, out=tmp_path / "alone", **SEARCH)
    script = RANK.format(
        cache=str(cache), manifest=str(manifest), heads=HEADS, out=str(tmp_path / "two"), settings=SEARCH
    )
    port = str(20_000 + os.getpid() % 20_000)
    ranks = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        warm_process(
            "python", "-c", script, env={**os.environ, **ranks, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in (0, 1)
    ]
    said = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert [out.splitlines()[-1] for out, _ in said] == ["4", "0"]
    shared = probe(cache, manifest, heads=HEADS, out=tmp_path / "two", **SEARCH)
    assert [result["lr"] for result in shared] == [result["lr"] for result in alone]
    for one, other in zip(alone, shared, strict=True):
        assert other["valid_scores"] == pytest.approx(one["valid_scores"], abs=1e-6)


def test_where_the_best_rate_lies_at_the_end_of_its_range_a_decade_beyond_is_tried(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same command again replays these trials as it does the others."""
    low = replace(PRESETS["plateau"], lr_range=(1e-5, 1e-3))
    monkeypatch.setitem(PRESETS, "plateau", low)
    made = make_tokens()
    (found, _) = probe(*made, heads=["linear:norm=none,standardize=none"], out=tmp_path, **SEARCH)
    beyond = [line["lr"] for line in trials(tmp_path)[8:]]
    assert beyond == pytest.approx([1e-3 * 10 ** (step / 3) for step in (1, 2, 3)])
    assert found["lr"] in beyond
    assert found["at_edge"] is (found["lr"] == pytest.approx(1e-2))
    (tmp_path / "results.jsonl").unlink()
    again, _ = probe(*made, heads=["linear:norm=none,standardize=none"], out=tmp_path, **SEARCH)
    assert numbers([again]) == numbers([found])
    assert len(trials(tmp_path)) == 11


def test_a_range_of_rates_that_is_given_holds_for_every_head_and_for_its_mark(
    make_tokens: Make, tmp_path: Path
) -> None:
    short = {**SEARCH, "trials": 4, "seeds": 1, "epochs": 2}
    results = probe(*make_tokens(), heads=HEADS, out=tmp_path, lr_range=(0.2, 0.3), **short)
    within = [line["lr"] for line in trials(tmp_path) if line["number"] < 4]
    assert len(within) == 8
    assert all(0.2 <= lr <= 0.3 for lr in within)
    assert [result["protocol"]["lr_range"] for result in results] == [[0.2, 0.3]] * 2
    own = [result for result in results if 0.21 < result["lr"] < 0.28]  # near the edge of the preset's ranges
    assert [result["at_edge"] for result in own] == [False] * len(own)
    assert own
    other = probe(*make_tokens(), heads=["linear"], out=tmp_path, **short)
    assert len(cells([results[0], *other])) == 2


@pytest.mark.parametrize(
    ("best", "beyond"), [(1.2e-4, (1e-5, 10**-4.5)), (1e-3, None), (9e-3, (10**-1.5, 1e-1))]
)
def test_a_study_goes_on_beyond_the_end_at_which_its_best_lies(
    best: float, beyond: tuple[float, float] | None
) -> None:
    study = Study({"lr": (1e-4, 1e-2), "weight_decay": (1e-5, 1e-3)}, sobol=2, seed=0)
    study.ask(2)
    assert study.widen({"lr": best, "weight_decay": 2e-5}, 2) is (beyond is not None)
    if beyond:
        asked = study.ask(2)
        assert sorted(own["lr"] for own in asked) == pytest.approx(beyond)
        assert {own["weight_decay"] for own in asked} == {2e-5}


def test_fixed_rates_and_published_protocols_are_not_widened(make_tokens: Make, tmp_path: Path) -> None:
    assert PRESETS["unmute"].beyond == 0
    assert not Study({"weight_decay": (1e-5, 1e-3)}, sobol=2, seed=0).widen({"weight_decay": 1e-5}, 2)


def test_a_search_chooses_norm_and_standardize_where_they_are_not_given(
    make_tokens: Make, tmp_path: Path
) -> None:
    """Folds and seeds may choose differently, and are one row all the same; what is given is not searched."""
    settings = SEARCH | {"trials": 12, "epochs": 2, "folds": True}
    probe(
        *make_tokens(folds=3),
        heads=["linear", "linear-mean:norm=layer"],
        out=tmp_path,
        **settings,
    )
    listed = [line for line in trials(tmp_path) if line["head"] == "linear"]
    assert {line["options"]["norm"] for line in listed} == {"none", "batch", "layer"}
    assert {line["options"]["standardize"] for line in listed} == {"none", "channel"}
    given = [line for line in trials(tmp_path) if line["head"] == "linear-mean"]
    assert {line["options"]["norm"] for line in given} == {"layer"}
    found = cells(read_results([tmp_path]))
    assert [(cell.head, cell.folds, cell.runs) for cell in found] == [
        ("linear", 3, 6), ("linear-mean[norm=layer]", 3, 6)
    ]  # fmt: skip
    assert all(result["searched"] == ["norm", "standardize"] for result in found[0].results)
    head = load(found[0].results[0].file("head"))
    assert head.config["norm"] in ("none", "layer")  # a batch norm is in the weights


def test_the_published_search_has_rates_and_decays_alone(make_tokens: Make, tmp_path: Path) -> None:
    (found, _) = probe(*make_tokens(), heads=["linear"], out=tmp_path, preset="unmute", **SEARCH)
    assert (found["options"], found["searched"]) == ({}, [])
