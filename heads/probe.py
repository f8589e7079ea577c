"""``probe``: how good is a frozen encoder on this data, under each of these heads?"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.encoding import choose_device
from featcache.errors import InputError, Interrupted
from featcache.heads.choice import Choice, parse_choice
from featcache.heads.data import Kind, Say
from featcache.heads.experiment import Experiment, choose_layers, open_experiment
from featcache.heads.passes import Watch
from featcache.heads.presets import Preset, preset_named
from featcache.heads.ranks import Ranks
from featcache.heads.results import Result
from featcache.heads.run import Run
from featcache.heads.search import Plan
from featcache.heads.source import DeviceCache
from featcache.heads.trial import Trial
from featcache.manifest import Manifest

if TYPE_CHECKING:
    from featcache.cache import TokenCache
    from featcache.heads.study import Ranges

Manifests = Manifest | str | Path | Sequence[Manifest | str | Path] | None


def probe(
    cache: "TokenCache | str | Path",
    manifest: Manifests = None,
    *,
    heads: Sequence[str],
    out: str | Path = "results",
    search: bool = False,
    preset: str = "unmute",
    task: Kind | None = None,
    folds: bool = False,
    layers: Sequence[int] | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    loss: str | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    seed: int = 0,
    device: str = "auto",
    device_cache: DeviceCache = "auto",
    say: Say | None = None,
    watch: Watch | None = None,
    progress: bool = False,
    dry_run: bool = False,
    **training: Any,
) -> list[Result]:
    """Train each head on each question of the manifest side by side, and test it.

    A head that ``out`` already holds a result of is not trained again; a run that was cut off goes
    on from its last saved epoch.

    Args:
        manifest: the one that the cache was last extracted from unless given; several share a pass
        heads: names, or names with options: ``protobin:per_class=10``
        out: folder of results.jsonl, the trained heads and their test scores
        search: choose learning rate and weight decay on the validation split, then train the best
            setting ``seeds`` times
        preset: the protocol whose numbers hold where none is given, see ``PRESETS``
        folds: cross-validate over the manifest's folds; with a search, each fold has its own
        seeds: how many times each head is trained: with seeds ``seed``, ``seed + 1``, …
        seed: of the order of clips, of held-out clips and of the search, too
        dry_run: say what it would cost, and do nothing
        training: fields of ``Training``, e.g. ``epochs=10``

    Raises:
        InputError: nothing to train on, unknown names, clips that are not in the cache.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    ranks = Ranks()
    say = (say or logging.getLogger("featcache").info) if ranks.first else _hush
    protocol = preset_named(preset)
    choices = [_with_preset(parse_choice(name), protocol) for name in heads]
    manifests = [manifest] if isinstance(manifest, str | Path | Manifest) else list(manifest or ())
    experiment = open_experiment(
        cache,
        manifests,
        device=choose_device(ranks.device(device)),
        say=say,
        folds=folds,
        kind=task,
        device_cache=device_cache,
        seed=seed,
        progress=progress and ranks.first,
    )
    run = Run(
        experiment, protocol.training(experiment.tasks, seed=seed, **training), Path(out), ranks, say, watch
    )
    bases = _bases(experiment, choices, layers, protocol, lr, weight_decay, loss, seed)
    plan = _plan(protocol, trials, seed) if search else None
    count = seeds or (protocol.seeds if search else 1)
    if dry_run:
        run.estimate(bases, plan, count)
        return []
    ranges = {"lr": lr, "weight_decay": weight_decay}
    try:
        record: dict[str, Any] = {"preset": preset, "search": plan and asdict(plan), "fixed": ranges}
        if plan is not None:
            bases = run.search(bases, [_ranges(protocol, base, ranges) for base in bases], plan)
        wanted = [replace(base, seed=seed + number) for base in bases for number in range(count)]
        return run.train_and_test(wanted, record)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; finished heads and trials are in {out}, and the same command goes on from there"
        ) from None


def _with_preset(choice: Choice, protocol: Preset) -> Choice:
    return Choice(choice.name, {**protocol.options.get(choice.name, {}), **choice.options})


def _bases(
    experiment: Experiment,
    choices: Sequence[Choice],
    layers: Sequence[int] | None,
    protocol: Preset,
    lr: float | None,
    weight_decay: float | None,
    loss: str | None,
    seed: int,
) -> list[Trial]:
    """One trial for each task, layer and head, with what is given or what the protocol fixes."""
    return [
        Trial(
            head=choice.name,
            task=number,
            layer=layer,
            lr=protocol.lr_of(choice.name) if lr is None else lr,
            weight_decay=protocol.weight_decay[task.kind] if weight_decay is None else weight_decay,
            loss=loss or protocol.loss[task.kind],
            seed=seed,
            options=choice.options,
        )
        for number, task in enumerate(experiment.tasks)
        for layer in choose_layers(experiment.cache, layers)
        for choice in choices
    ]


def _plan(protocol: Preset, trials: int | None, seed: int) -> Plan:
    if not trials and not protocol.sobol:
        raise InputError(f"preset {protocol.name!r} has fixed settings; leave out --search, or give --trials")
    if trials is None:
        return Plan(sobol=protocol.sobol, tpe=protocol.tpe, seed=seed)
    return Plan(sobol=trials - trials // 2, tpe=trials // 2, seed=seed)


def _ranges(protocol: Preset, base: Trial, given: Mapping[str, float | None]) -> "Ranges":
    """What is searched for a head: all that is not given."""
    own = {"lr": protocol.lr_range_of(base.head), "weight_decay": protocol.weight_decay_range}
    return {name: own[name] for name, value in given.items() if value is None}


def _hush(line: str) -> None:
    """Other ranks than the first say nothing."""
