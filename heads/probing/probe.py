"""``probe``: how good is a frozen encoder on this data, under each of these heads?"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.cache.read.join import Say
from featcache.devices import choose_device
from featcache.devices import threads as limited
from featcache.errors import FeatcacheError, InputError, Interrupted
from featcache.heads.data.source import DeviceCache
from featcache.heads.data.tasks import Kind, Shots
from featcache.heads.probing.arguments import check_probe
from featcache.heads.probing.cost import estimate
from featcache.heads.probing.experiment import choose_layers, open_experiment
from featcache.heads.probing.presets import preset_named
from featcache.heads.probing.rounds import Rounds
from featcache.heads.probing.tracking import Tracking, open_tracker
from featcache.heads.probing.trials import bases_of, passes_of, ranges_of, search_plan
from featcache.heads.registry import ALIASES, parse_choice
from featcache.heads.report.results import Result, digest_of
from featcache.heads.report.shortfall import shortfalls
from featcache.heads.report.summary import cells
from featcache.heads.solved.registry import is_solved, parse_solved
from featcache.heads.solved.solve import check_memory, references, solve_and_test
from featcache.heads.training.distributed import Ranks
from featcache.heads.training.losses import build_loss
from featcache.heads.training.resume import claimed
from featcache.heads.training.run import Watch
from featcache.manifest import Manifest
from featcache.output import keeping, writable
from featcache.scratch import keep_freed_memory

if TYPE_CHECKING:
    from featcache.cache import TokenCache

SEEDS = 3  # one run ranks nothing
Manifests = Manifest | str | Path | Sequence[Manifest | str | Path] | None


def probe(
    cache: "TokenCache | str | Path",
    manifest: Manifests = None,
    *,
    heads: str | Sequence[str],
    out: str | Path = "results",
    search: bool = False,
    preset: str = "plateau",
    task: Kind | None = None,
    folds: bool = False,
    shots: Shots | None = None,
    allow_leak: bool = False,
    solved: bool = True,
    layers: Sequence[int] | None = None,
    lr: float | None = None,
    lr_range: tuple[float, float] | None = None,
    weight_decay: float | None = None,
    loss: str | None = None,
    trials: int | None = None,
    seeds: int | None = None,
    seed: int = 0,
    device: str = "auto",
    device_cache: DeviceCache = "auto",
    threads: int | None = None,
    verify: bool = True,
    distributed: bool = False,
    log: str | None = None,
    say: Say | None = None,
    watch: Watch | None = None,
    progress: bool = False,
    dry_run: bool = False,
    tell: Callable[[dict[str, Any]], None] = lambda cost: None,
    **training: Any,
) -> list[Result]:
    """Train or solve each head on each question of the manifest, and test it; trained ones come first.

    A head that ``out`` already holds a result of is not trained again; a run that was cut off goes
    on from its last saved epoch.

    Args:
        manifest: the one that the cache was last extracted from unless given; of several, those
            that train alike share a pass
        heads: a name or names, with options if wanted: ``protobin:per_class=10``; solved heads
            (``SOLVED``: logreg, ridge, knn, centroid) too: ``logreg:features=mean+sd``
        out: folder of results.jsonl, the trained heads and their test scores
        search: choose learning rate and weight decay on the validation split, then train the best
            setting ``seeds`` times
        preset: the protocol whose numbers hold where none is given, see ``PRESETS``
        task: "multi-label" or "single-label"; decided by the labels unless given
        folds: cross-validate over the manifest's folds; with a search, each fold has its own
        shots: numbers of train clips a class, and "all": each trains on a draw of its own (with ``seed``)
            from the same train split, a smaller one part of a larger, and is tested alike
        allow_leak: take splits or folds of the manifest that tear a recording apart
        solved: solve all solved heads on mean, and ``logreg`` on tfmean, as references that need no luck
        lr_range: between which learning rates a search looks, for every head; the preset's unless given
        seeds: how many times each head is trained (3; after a search the preset's): with seeds ``seed``,
            ``seed + 1``, …
        seed: of the order of clips, of held-out clips, of shots and of the search, too
        device_cache: load all tokens to the device once: "on", "off", or "auto" where they fit
        threads: of torch and of the match, on the CPU, until this returns; torch's number unless given
        verify: compare each file of tokens with its checksum when it is first read
        distributed: join the process group that torchrun started this process for, and share the trials
        log: tracker that hears of each run: tensorboard, wandb or mlflow (extras of these names)
        say: takes one line at a time; the logger ``featcache`` does unless given
        watch: called after every epoch with (epoch, epochs, outcomes so far)
        dry_run: say what it would cost, and keep nothing: a few batches are timed
        tell: takes each phase of a dry run as a record, too
        training: fields of ``Training``, e.g. ``epochs=10``, or ``max_steps``

    Raises:
        InputError: nothing to train on, unknown names, values out of range, clips that are not in
            the cache.
        OutputError: ``out`` cannot be written, or another process runs the same into it.
        FeatcacheError: of the heads to be trained not one could be.
        Interrupted: Ctrl-C; what is finished is kept.
    """
    names = [heads] if isinstance(heads, str) else list(heads)
    check_probe(
        heads=names, task=task, lr=lr, lr_range=lr_range, weight_decay=weight_decay, trials=trials,
        seeds=seeds, seed=seed, shots=shots, device_cache=device_cache, threads=threads, log=log,
        training=training,
    )  # fmt: skip
    out = Path(out)
    if not dry_run:
        writable(out)
    ranks = Ranks(distributed)
    say = (say or logging.getLogger("featcache").info) if ranks.first else _hush
    protocol = preset_named(preset).searching(lr_range)
    if lr_range is not None and (lr is not None or not search):
        raise InputError(
            f"lr_range is {lr_range}, and no learning rate is searched for; give search, and no lr",
            options=("lr_range", "search", "lr"),
        )
    if loss is not None:
        build_loss(loss)
    tracker = open_tracker(log, out) if ranks.first else None
    plan = search_plan(protocol, trials, seed) if search else None
    choices = [parse_choice(name) for name in names if not is_solved(name)]
    for name, choice in zip([name for name in names if not is_solved(name)], choices, strict=True):
        if (own_name := name.split(":")[0]) in ALIASES:
            say(f"{own_name} is {choice.name} here: results name it so")
    manifests = [manifest] if isinstance(manifest, str | Path | Manifest) else list(manifest or ())
    experiment = open_experiment(
        cache, manifests, device=choose_device(ranks.device(device)), say=say, folds=folds, kind=task,
        device_cache=device_cache, seed=seed, shots=shots or ("all",), allow_leak=allow_leak,
        progress=progress and ranks.first, verify=verify,
    )  # fmt: skip
    passes = passes_of(experiment, protocol, seed, training)
    bases = bases_of(
        experiment, choices, layers, protocol, lr, weight_decay, loss, seed, search, training.get("epochs")
    )
    count = seeds or (protocol.seeds if search else SEEDS)
    to_solve = [parse_solved(name, experiment.cache.has_cls) for name in names if is_solved(name)]
    check_memory(experiment, to_solve, choose_layers(experiment.cache, layers))
    unasked = references(experiment, [own.name for own in choices], say) if solved else []
    to_solve += [choice for choice in unasked if choice not in to_solve]
    if dry_run:
        for settings, numbers in passes.items():
            if own := [base for base in bases if base.task in numbers]:
                for cost in estimate(experiment, settings, own, plan, count, say):
                    tell(cost)
        say(f"solved, not trained: {', '.join(choice.title for choice in to_solve) or 'none'}")
        return []
    given = {"lr": lr, "weight_decay": weight_decay}
    record: dict[str, Any] = {
        "preset": preset,
        "search": plan and asdict(plan),
        "fixed": given,
        "allow_leak": allow_leak,
    }
    if lr_range is not None:
        record["lr_range"] = list(lr_range)
    asked = [[asdict(own) for own in bases], [asdict(settings) for settings in passes], names, count, solved]
    run = digest_of([experiment.digest, asked, record])
    results = []
    keep_freed_memory()
    try:
        with (
            keeping(out),
            limited(threads),
            claimed(out / "state" / f"{run}.lock") if ranks.first else nullcontext(),
            Tracking(tracker, say) as tracking,
        ):
            rounds = Rounds(
                experiment=experiment, out=out, record=record, ranks=ranks, say=say, watch=watch,
                tracking=tracking,
            )  # fmt: skip
            for settings, numbers in passes.items():
                own = [base for base in bases if base.task in numbers]
                if plan is not None:
                    ranges = [ranges_of(protocol, base, given) for base in own]
                    own = rounds.best(own, ranges, settings, plan)
                    say(f"search is over: training the best of each, {count} seed(s)")
                wanted = [replace(base, seed=seed + number) for base in own for number in range(count)]
                results += rounds.train_and_test(wanted, settings)
            if ranks.first:
                layers = choose_layers(experiment.cache, layers)
                results += solve_and_test(experiment, to_solve, layers, out, record, say, tracking.end)
                for cell, _, score in shortfalls(cells(results)):
                    scores = f"{100 * cell.mean:.1f} against {100 * score:.1f} solved on the same features"
                    say(
                        f"{cell.dataset}: {cell.head} is undertrained: {scores}; train it longer or with a "
                        "higher lr"
                    )
                if bases and all(result.get("solved") for result in results):
                    raise FeatcacheError(
                        "no head could be trained: the loss of each was not finite; try a smaller lr"
                    )
            return results
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; finished heads and trials are in {out}, and the same command goes on from there"
        ) from None


def _hush(line: str) -> None:
    """Other ranks than the first say nothing."""
