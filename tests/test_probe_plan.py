"""What a run says of itself, before and while it works: its cost, its parts, the names that it uses."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.heads.probing.experiment import open_experiment
from featcache.heads.probing.probe import probe
from featcache.heads.probing.rehearsal import seconds_an_epoch
from featcache.heads.training.trainer import Trainer
from featcache.heads.training.trial import Training, Trial

Make = Callable[..., tuple[Path, Path]]


def words(made: tuple[Path, Path], *more: str) -> list[str]:
    return ["probe", str(made[0]), "--manifest", str(made[1]), "--no-solved", *more]


def test_a_dry_run_tells_the_time_in_lines_and_in_json(make_tokens: Make, tmp_path: Path) -> None:
    command = words(make_tokens(), "--head", "protobin", "--search", "--trials", "4", "--dry-run")
    command += ["--out", str(tmp_path / "o")]
    said = CliRunner().invoke(featcache, command).stdout
    assert said.count(" an epoch, at most ") == 3
    done = CliRunner().invoke(featcache, [*command, "--json"])
    costs = [json.loads(line) for line in done.stdout.splitlines()]
    phases = [cost["phase"] for cost in costs]
    assert phases[0] == "search, Sobol trials 1-2 of each"
    assert phases[-1] == "training, 3 seed(s) of each"
    assert all(cost["seconds"] > 0 and cost["trials"] > 0 and cost["flops"] > 0 for cost in costs)
    assert not (tmp_path / "o").exists()


def test_the_time_of_an_epoch_is_near_the_time_it_takes(make_tokens: Make) -> None:
    cache, manifest = make_tokens(clips=1200, tokens=64, dim=64)
    experiment = open_experiment(cache, [manifest], device=torch.device("cpu"), say=print)
    trials = [Trial(head="mhca", task=0, layer=2, lr=1e-3, weight_decay=0.0, loss="asymmetric", seed=0)]
    training = Training(epochs=1, batch_size=16, seed=0)
    guessed = seconds_an_epoch(experiment, trials, training)
    trainer = Trainer(trials, experiment.tasks, experiment.source(trials), training)
    trainer.train()
    assert 1 / 20 < guessed / trainer.seconds < 20  # another process may have the core meanwhile


def test_a_search_names_its_parts_and_what_is_left(make_tokens: Make, tmp_path: Path) -> None:
    said: list[str] = []
    probe(
        *make_tokens(), heads=["linear"], out=tmp_path, search=True, trials=6, seeds=1, solved=False,
        epochs=2, batch_size=16, say=said.append,
    )  # fmt: skip
    parts = [line for line in said if line.startswith("search, part")]
    assert parts[0] == "search, part 1 of 2: 3 trials of each head"
    assert parts[1].startswith("search, part 2 of 2: 3 trials of each head, about ")
    assert parts[1].endswith(" left to search")
    assert "search is over: training the best of each, 1 seed(s)" in said


def test_a_short_name_is_said_to_be_one(make_tokens: Make, tmp_path: Path) -> None:
    said: list[str] = []
    probe(*make_tokens(), heads="attentive:num_heads=4", dry_run=True, say=said.append)
    assert "attentive is mhca here: results name it so" in said


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_may_stand_before_or_after_the_command(
    make_tokens: Make, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    command = words(make_tokens(), "--head", "linear", "--dry-run")
    command = ["-v", *command] if place == "before" else [*command, "-v"]
    assert CliRunner().invoke(featcache, command).exit_code == 0
    assert logging.getLogger("featcache").level == logging.INFO
    done = CliRunner().invoke(featcache, ["cache", "info", str(tmp_path / "none"), "-vv"])
    assert (done.exit_code, logging.getLogger("featcache").level) == (2, logging.DEBUG)
    assert any(record.exc_info for record in caplog.records)
    assert CliRunner().invoke(featcache, words(make_tokens(), "--head", "linear", "--dry-run")).exit_code == 0
    assert logging.getLogger("featcache").level == logging.WARNING
