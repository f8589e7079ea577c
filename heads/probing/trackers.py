"""The trackers that people already use, behind one interface: TensorBoard, Weights & Biases, MLflow.

Each is an extra of the same name, imported when a run asks for it.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from featcache.output import file_name

PROJECT = "featcache"  # unless the user's own variables name another
Numbers = Mapping[str, float]
Settings = Mapping[str, str | int | float | bool]


class Log(Protocol):
    """One run in a tracker.

    ``known`` is the last epoch that it holds of an earlier start of the same run.
    """

    known: int

    def epoch(self, number: int, values: Numbers) -> None:
        """Values after an epoch, counted from 1."""

    def end(self, metrics: Numbers | None) -> None:
        """The run is over; None: without a result."""


class Tracker(Protocol):
    """Where runs are logged. Made with the folder of results; raises ImportError without its package."""

    def begin(self, run: str, title: str, settings: Settings, metric: str) -> Log:
        """Log a run; one of this digest that was begun before goes on.

        Args:
            metric: the final metric by which runs are compared
        """


class TensorBoard:
    """Event files in ``OUT/tensorboard``, a folder a run."""

    def __init__(self, out: Path) -> None:
        import torch.utils.tensorboard  # noqa: F401

        self.folder = out / "tensorboard"

    def begin(self, run: str, title: str, settings: Settings, metric: str) -> Log:
        name = f"{file_name(title.replace(' ', '-'))}-{run}"
        return TensorBoardLog(self.folder / name, settings, metric)


class TensorBoardLog:
    """A folder of event files."""

    known = 0  # a run that goes on is written anew: readers drop what is before a start at step 0

    def __init__(self, folder: Path, settings: Settings, metric: str) -> None:
        from torch.utils.tensorboard import SummaryWriter, summary

        self.writer = cast(Any, SummaryWriter(folder, purge_step=0))
        *beginning, self.ended = cast(Any, summary).hparams(dict(settings), {metric: 0.0})
        for own in beginning:
            self.writer.file_writer.add_summary(own)
        self.last = 0

    def epoch(self, number: int, values: Numbers) -> None:
        self.last = number
        self._write(values)
        self.writer.flush()

    def end(self, metrics: Numbers | None) -> None:
        self._write(metrics or {})
        if metrics is not None:
            self.writer.file_writer.add_summary(self.ended)
        self.writer.close()

    def _write(self, values: Numbers) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, self.last)


class Wandb:
    """Runs of a project, in ``OUT/wandb`` and, unless WANDB_MODE is offline, on its server."""

    def __init__(self, out: Path) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.wandb, self.out = wandb, out

    def begin(self, run: str, title: str, settings: Settings, metric: str) -> Log:
        self.out.mkdir(parents=True, exist_ok=True)
        return WandbLog(
            self.wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=run,
                name=title,
                config=dict(settings),
                dir=str(self.out),
                resume="allow",
                reinit="create_new",  # runs train side by side
                settings=self.wandb.Settings(silent=True, console="off"),
            )
        )


class WandbLog:
    """A run of Weights & Biases; its steps are ours, whatever order they come in."""

    def __init__(self, run: Any) -> None:
        self.run = run
        run.define_metric("*", step_metric="epoch")
        self.known = int(run.summary.get("epoch") or 0) if run.resumed else 0

    def epoch(self, number: int, values: Numbers) -> None:
        self.run.log({"epoch": number, **values})

    def end(self, metrics: Numbers | None) -> None:
        self.run.summary.update(dict(metrics or {}))
        self.run.finish(exit_code=int(metrics is None))


class Mlflow:
    """Runs of an experiment, in ``OUT/mlflow.db`` unless the user has set a tracking address."""

    def __init__(self, out: Path) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        self.mlflow = mlflow
        own = mlflow.is_tracking_uri_set()
        self.address = mlflow.get_tracking_uri() if own else f"sqlite:///{out.absolute() / 'mlflow.db'}"
        self.out = out

    def begin(self, run: str, title: str, settings: Settings, metric: str) -> Log:
        self.out.mkdir(parents=True, exist_ok=True)
        client = self.mlflow.MlflowClient(tracking_uri=self.address)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        before = client.search_runs([experiment], f"tags.`featcache.run` = '{run}'", max_results=1)
        if before:
            client.update_run(before[0].info.run_id, status="RUNNING")
            return MlflowLog(self.mlflow, client, before[0].info.run_id)
        begun = client.create_run(experiment, run_name=title, tags={"featcache.run": run})
        params = [self.mlflow.entities.Param(key, str(value)) for key, value in settings.items()]
        client.log_batch(begun.info.run_id, params=params)
        return MlflowLog(self.mlflow, client, begun.info.run_id)


class MlflowLog:
    """A run of MLflow; final metrics stand at step 0."""

    def __init__(self, mlflow: Any, client: Any, run: str) -> None:
        self.mlflow, self.client, self.run = mlflow, client, run
        steps = [point.step for point in client.get_metric_history(run, "train/loss")]
        self.known = max(steps, default=0)

    def epoch(self, number: int, values: Numbers) -> None:
        now = int(1000 * time.time())  # [ms]
        metrics = [self.mlflow.entities.Metric(key, value, now, number) for key, value in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def end(self, metrics: Numbers | None) -> None:
        if metrics:
            self.epoch(0, metrics)
        self.client.set_terminated(self.run, "FAILED" if metrics is None else "FINISHED")


TRACKERS: dict[str, type[TensorBoard] | type[Wandb] | type[Mlflow]] = {
    "tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow,
}  # fmt: skip
