"""What a probe is to train: which tasks share a pass, and the trials, with what is given or fixed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from featcache.errors import InputError
from featcache.heads.probing.experiment import Experiment, choose_layers
from featcache.heads.probing.presets import Preset
from featcache.heads.probing.search import SearchPlan
from featcache.heads.registry import Choice
from featcache.heads.training.losses import check_loss
from featcache.heads.training.trial import Training, Trial

if TYPE_CHECKING:
    from featcache.heads.probing.study import Ranges


def passes_of(
    experiment: Experiment, protocol: Preset, seed: int, given: Mapping[str, Any]
) -> dict[Training, list[int]]:
    """Which tasks train in one pass: those of equal settings.

    A few shots, or a small data set, have few batches: to train as many steps as others they need batches
    and epochs of their own, which the protocol finds for each manifest and number of shots.
    """
    found: dict[Training, list[int]] = {}
    tasks = experiment.tasks
    for own in dict.fromkeys((task.digest, task.shots) for task in tasks):
        numbers = [number for number, task in enumerate(tasks) if (task.digest, task.shots) == own]
        settings = protocol.training([tasks[number] for number in numbers], seed=seed, **given)
        found.setdefault(settings, []).extend(numbers)
    return found


def bases_of(
    experiment: Experiment,
    choices: Sequence[Choice],
    layers: Sequence[int] | None,
    protocol: Preset,
    lr: float | None,
    weight_decay: float | None,
    loss: str | None,
    seed: int,
    search: bool,
    epochs: int | None = None,
) -> list[Trial]:
    """One trial for each task, layer and head, with what is given or what the protocol fixes.

    Raises:
        InputError: a loss that does not fit a task.
    """
    if loss is not None:
        for task in experiment.tasks:
            check_loss(loss, task.kind)
    searched = {
        choice.title: tuple(protocol.searched_of(choice.name, choice.options)) if search else ()
        for choice in choices
    }
    return [
        Trial(
            head=choice.name,
            task=number,
            layer=layer,
            lr=protocol.lr_of(choice.name, epochs=epochs) if lr is None else lr,
            weight_decay=protocol.weight_decay[task.kind] if weight_decay is None else weight_decay,
            loss=loss or protocol.loss[task.kind],
            seed=seed,
            options={**protocol.options_of(choice.name), **choice.options},
            searched=searched[choice.title],
        )
        for number, task in enumerate(experiment.tasks)
        for layer in choose_layers(experiment.cache, layers)
        for choice in choices
    ]


def search_plan(protocol: Preset, trials: int | None, seed: int) -> SearchPlan:
    if not trials and not protocol.sobol:
        raise InputError(
            f"preset {protocol.name!r} has fixed settings; leave out search, or give trials",
            options=("search", "trials"),
        )
    if trials is None:
        return SearchPlan(sobol=protocol.sobol, tpe=protocol.tpe, beyond=protocol.beyond, seed=seed)
    return SearchPlan(sobol=trials - trials // 2, tpe=trials // 2, beyond=protocol.beyond, seed=seed)


def ranges_of(protocol: Preset, base: Trial, given: Mapping[str, float | None]) -> "Ranges":
    """What is searched for a head: all that is not given."""
    own = {"lr": protocol.lr_range_of(base.head), "weight_decay": protocol.weight_decay_range}
    numbers = {name: own[name] for name, value in given.items() if value is None}
    return {**numbers, **{name: protocol.searched[name] for name in base.searched}}
