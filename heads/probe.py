"""``probe``: how good is a frozen encoder on this data, under each of these heads?"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.encoding import choose_device
from featcache.heads.data import Kind, Say
from featcache.heads.experiment import Experiment, choose_layers, open_experiment
from featcache.heads.finish import finish, run_digest
from featcache.heads.passes import Watch, run_pass
from featcache.heads.results import RESULTS, Result, digest_of, read_results
from featcache.heads.source import DeviceCache
from featcache.heads.table import head_spec
from featcache.heads.trial import Outcome, Training, Trial
from featcache.manifest import Manifest

if TYPE_CHECKING:
    from featcache.cache import TokenCache

# Learning rates of a single run, by family: the geometric middle of the paper's search ranges
# ([1e-4, 7e-3], prototypes [2e-3, 8e-2]) to one digit, and of its weight decays ([1e-5, 5e-4]).
# Chosen before any run, and the same for every encoder.
LR = 1e-3
PROTOTYPE_LR = 1e-2
WEIGHT_DECAY = 1e-4
LOSS: Mapping[Kind, str] = {"multi-label": "asymmetric", "single-label": "cross-entropy"}


def default_lr(head: str) -> float:
    """The learning rate of a head that is not searched for."""
    return PROTOTYPE_LR if head_spec(head).family == "prototypes" else LR


def probe(
    cache: "TokenCache | str | Path",
    manifest: Manifest | str | Path | Sequence[Manifest | str | Path] | None = None,
    *,
    heads: Sequence[str],
    out: str | Path = "results",
    task: Kind | None = None,
    folds: bool = False,
    layers: Sequence[int] | None = None,
    lr: float | None = None,
    weight_decay: float = WEIGHT_DECAY,
    loss: str | None = None,
    seeds: int = 1,
    training: Training | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "auto",
    device_cache: DeviceCache = "auto",
    say: Say | None = None,
    watch: Watch | None = None,
    progress: bool = False,
) -> list[Result]:
    """Train each head on each question of the manifest side by side, and test it.

    A head that ``out`` already holds a result of is not trained again; a run that was cut off goes
    on from its last saved epoch.

    Args:
        manifest: the one that the cache was last extracted from unless given; several share a pass
        out: folder of results.jsonl, the trained heads and their test scores
        folds: cross-validate over the manifest's folds
        lr: of all heads; ``default_lr`` of each unless given
        seeds: how many times each head is trained, with seeds 0, 1, …
        options: of the heads, e.g. ``{"per_class": 10}``

    Raises:
        InputError: nothing to train on, unknown names, clips that are not in the cache.
    """
    say = say or logging.getLogger("featcache").info
    training = training or Training()
    for name in heads:
        head_spec(name)
    manifests = [manifest] if isinstance(manifest, str | Path | Manifest) else list(manifest or ())
    experiment = open_experiment(
        cache,
        manifests,
        device=choose_device(device),
        say=say,
        folds=folds,
        kind=task,
        device_cache=device_cache,
        progress=progress,
    )
    trials = [
        Trial(
            head=head_spec(name).name,
            task=number,
            layer=layer,
            lr=lr or default_lr(name),
            weight_decay=weight_decay,
            loss=loss or LOSS[asked.kind],
            seed=seed,
            options=dict(options or {}),
        )
        for number, asked in enumerate(experiment.tasks)
        for layer in choose_layers(experiment.cache, layers)
        for name in heads
        for seed in range(seeds)
    ]
    return train_and_test(experiment, trials, training, Path(out), {"search": None}, say=say, watch=watch)


def train_and_test(
    experiment: Experiment,
    trials: Sequence[Trial],
    training: Training,
    out: Path,
    protocol: Mapping[str, Any],
    *,
    say: Say,
    watch: Watch | None = None,
) -> list[Result]:
    """Train what ``out`` has no result of yet; all results, in the order of the trials."""
    digests = [run_digest(experiment, trial, training, protocol) for trial in trials]
    known = {result["run"]: result for result in read_results([out])} if (out / RESULTS).exists() else {}
    todo = [trial for trial, digest in zip(trials, digests, strict=True) if digest not in known]
    if len(todo) < len(trials):
        say(f"{len(trials) - len(todo)} of {len(trials)} heads are in {out / RESULTS} already")
    if todo:
        state = out / "state" / f"{digest_of(digests)}.pt"
        outcomes = run_pass(experiment, todo, training, state=state, watch=watch)
        for outcome in outcomes:
            if outcome.status == "failed":
                say(_failure(outcome))
        known |= {result["run"]: result for result in finish(experiment, outcomes, training, out, protocol)}
        state.unlink(missing_ok=True)
    return [known[digest] for digest in digests if digest in known]


def _failure(outcome: Outcome) -> str:
    trial = outcome.trial
    return (
        f"{trial.head} (lr {trial.lr:g}, seed {trial.seed}) failed: its loss was not finite in "
        f"epoch {len(outcome.losses)}; try a smaller --lr"
    )
