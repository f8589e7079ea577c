"""``probe(log=...)``: what trackers hear is what the result lines say, and changes nothing."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from featcache.cli.main import featcache
from featcache.errors import FeatcacheError, InputError
from featcache.heads.probing.probe import probe
from featcache.heads.probing.trackers import TRACKERS
from featcache.heads.probing.tracking import metrics_of
from featcache.heads.training.trial import Outcome

Make = Callable[..., tuple[Path, Path]]
QUICK: dict[str, Any] = {
    "heads": ["linear", "protobin:per_class=2", "centroid"], "epochs": 3, "batch_size": 16, "seeds": 1,
    "solved": False,
}  # fmt: skip


def events(out: Path, run: str) -> EventAccumulator:
    (folder,) = (out / "tensorboard").glob(f"*{run}")
    return EventAccumulator(str(folder)).Reload()


def curve(found: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_files_have_the_numbers_of_the_result_lines(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens()
    plain = probe(*made, out=tmp_path / "plain", **QUICK)
    out = tmp_path / "out"
    results = probe(*made, out=out, log="tensorboard", **QUICK)
    for one, other in zip(plain, results, strict=True):  # the same to the bit
        for name in ("run", "train_losses", "valid_scores", "valid", "test"):
            assert one[name] == other[name]
        np.testing.assert_array_equal(one.scores()[1], other.scores()[1])
    for result in results:
        found = events(out, result["run"])
        if result["train_losses"]:  # trained, not solved
            losses, scores = curve(found, "train/loss"), curve(found, "valid/mAP")
            assert losses == list(enumerate(np.float32(result["train_losses"]).tolist(), 1))
            assert scores == list(enumerate(np.float32(result["valid_scores"]).tolist(), 1))
        for split in ("valid", "test"):
            for name, value in result[split].items():
                assert curve(found, f"final/{split}/{name}")[0][1] == pytest.approx(value, rel=1e-6)
        content = found.PluginTagToContent("hparams")["_hparams_/session_start_info"]
        settings = HParamsPluginData.FromString(content).session_start_info.hparams
        assert settings["head"].string_value == result["head"]
        if result["lr"]:
            assert settings["lr"].number_value == result["lr"]
            assert settings["training.batch_size"].number_value == 16
        if result["head"] == "protobin":
            assert settings["options.per_class"].number_value == 2
    assert len(list((out / "tensorboard").iterdir())) == 3


def test_a_run_that_was_cut_off_is_logged_once(make_tokens: Make, tmp_path: Path) -> None:
    def stop(epoch: int, epochs: int, outcomes: Sequence[Outcome]) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    own = {**QUICK, "heads": "linear", "log": "tensorboard", "out": tmp_path / "out"}
    made = make_tokens()
    with pytest.raises(KeyboardInterrupt):
        probe(*made, watch=stop, **own)
    (result,) = probe(*made, **own)
    found = events(tmp_path / "out", result["run"])
    assert [step for step, _ in curve(found, "train/loss")] == [1, 2, 3]
    assert len(curve(found, "final/test/mAP")) == 1


class FakeRun(SimpleNamespace):
    """What is used of wandb's runs."""

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "epoch")

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.ended = exit_code


def wandb_made_up(runs: dict[str, Any]) -> ModuleType:
    def init(**given: Any) -> FakeRun:
        runs[given["id"]] = FakeRun(given=given, logged=[], summary={}, resumed=False, ended=None)
        return runs[given["id"]]

    module = ModuleType("wandb")
    vars(module).update(init=init, Settings=dict)
    return module


class FakeClient:
    """What is used of mlflow's client."""

    runs: dict[str, Any]

    def __init__(self, tracking_uri: str) -> None:
        assert tracking_uri.startswith("sqlite:////")

    def get_experiment_by_name(self, name: str) -> None:
        assert name == "featcache"

    def create_experiment(self, name: str) -> str:
        return "1"

    def search_runs(self, experiments: list[str], asked: str, max_results: int) -> list[Any]:
        return [run for name, run in self.runs.items() if name in asked]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        name = tags["featcache.run"]
        info = SimpleNamespace(run_id=name)
        self.runs[name] = SimpleNamespace(info=info, params={}, metrics=[], status=None, title=run_name)
        return self.runs[name]

    def log_batch(self, run: str, metrics: Sequence[Any] = (), params: Sequence[Any] = ()) -> None:
        self.runs[run].metrics += [(own[0], own[1], own[3]) for own in metrics]
        self.runs[run].params.update({own[0]: own[1] for own in params})

    def get_metric_history(self, run: str, name: str) -> list[Any]:
        return [SimpleNamespace(step=step) for own, _, step in self.runs[run].metrics if own == name]

    def set_terminated(self, run: str, status: str) -> None:
        self.runs[run].status = status


def mlflow_made_up(runs: dict[str, Any]) -> ModuleType:
    def entity(*given: Any) -> tuple[Any, ...]:
        return given

    module = ModuleType("mlflow")
    client = type("Client", (FakeClient,), {"runs": runs})
    vars(module).update(
        is_tracking_uri_set=lambda: False, MlflowClient=client,
        entities=SimpleNamespace(Metric=entity, Param=entity),
    )  # fmt: skip
    return module


def test_wandb_hears_of_every_run(make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "wandb", wandb_made_up(runs))
    results = probe(*make_tokens(), out=tmp_path / "out", log="wandb", **QUICK)
    assert list(runs) == [result["run"] for result in results]
    for result in results:
        run = runs[result["run"]]
        assert run.logged == [
            {"epoch": number, "train/loss": loss, "valid/mAP": score}
            for number, (loss, score) in enumerate(
                zip(result["train_losses"], result["valid_scores"], strict=True), 1
            )
        ]
        assert run.summary == metrics_of(result.line)
        assert run.ended == 0
        assert run.given["project"] == "featcache"
        assert run.given["config"]["head"] == result["head"]
        assert run.given["name"] == f"fake tokens {result.label} seed {result['seed']}"


def test_mlflow_hears_of_every_run(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "mlflow", mlflow_made_up(runs))
    results = probe(*make_tokens(), out=tmp_path / "out", log="mlflow", **QUICK)
    assert list(runs) == [result["run"] for result in results]
    for result in results:
        run = runs[result["run"]]
        for name, values in (("train/loss", "train_losses"), ("valid/mAP", "valid_scores")):
            heard = [(value, step) for own, value, step in run.metrics if own == name]
            assert heard == [(value, step) for step, value in enumerate(result[values], 1)]
        final = {name: value for name, value, step in run.metrics if step == 0}
        assert final == metrics_of(result.line)
        assert (run.status, run.params["head"]) == ("FINISHED", result["head"])


@pytest.mark.filterwarnings("ignore")  # of other people's packages
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_itself_takes_them_offline(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    results = probe(*make_tokens(), out=tmp_path / "out", log="wandb", **QUICK)
    for result in results:
        assert len(list((tmp_path / "out/wandb").glob(f"offline-run-*/run-{result['run']}.wandb"))) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_itself_takes_them(make_tokens: Make, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    results = probe(*make_tokens(), out=tmp_path / "out", log="mlflow", **QUICK)
    client = MlflowClient(f"sqlite:///{tmp_path / 'out/mlflow.db'}")
    experiment = client.get_experiment_by_name("featcache").experiment_id
    for result in results:
        (run,) = client.search_runs([experiment], f"tags.`featcache.run` = '{result['run']}'")
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [point.value for point in history] == result["train_losses"]
        assert run.data.metrics.items() >= metrics_of(result.line).items()
        assert (run.info.status, run.data.params["head"]) == ("FINISHED", result["head"])


@pytest.fixture
def without_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    for name in TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_trackers")
@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_line_that_names_the_extra(name: str, tmp_path: Path) -> None:
    words = ["probe", str(tmp_path / "no.zarr"), "--head", "linear", "--log", name]
    done = CliRunner().invoke(featcache, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert f"pip install 'featcache[{name}]'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_tracker_is_refused(make_tokens: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no log named 'tensorbord'; did you mean 'tensorboard'"):
        probe(*make_tokens(), out=tmp_path / "out", log="tensorbord", **QUICK)


def test_a_tracker_that_fails_costs_no_run(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: FakeRun, values: dict[str, float]) -> None:
        raise ConnectionError("the line is down\nand more")

    monkeypatch.setitem(sys.modules, "wandb", wandb_made_up({}))
    monkeypatch.setattr(FakeRun, "log", fails)
    said: list[str] = []
    results = probe(*make_tokens(), out=tmp_path / "out", log="wandb", say=said.append, **QUICK)
    assert len(results) == 3
    assert [line for line in said if "tracker" in line] == [
        "the tracker failed and hears no more: the line is down"
    ]


def test_a_tracker_that_takes_no_run_ends_it_before_training(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = wandb_made_up({})
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(module, "init", lambda **given: 1 / 0)
    with pytest.raises(FeatcacheError, match="the tracker takes no run: division by zero; mend that") as told:
        probe(*make_tokens(), out=tmp_path / "out", log="wandb", **QUICK)
    assert told.value.exit_code == 1


def test_a_head_that_diverged_is_marked(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "wandb", wandb_made_up(runs))
    with pytest.raises(FeatcacheError, match="no head could be trained"):
        probe(*make_tokens(), out=tmp_path / "out", log="wandb", lr=1e30, **{**QUICK, "heads": "mlp"})
    (run,) = runs.values()
    assert (run.ended, run.summary) == (1, {})
