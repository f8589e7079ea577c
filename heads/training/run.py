"""One pass of the trainer that survives interruption and may be shared by several ranks."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from featcache.heads.probing.experiment import Experiment
from featcache.heads.training.distributed import Ranks
from featcache.heads.training.resume import Saver, rank_file, restore
from featcache.heads.training.trainer import OnEpoch, Trainer
from featcache.heads.training.trial import Outcome, Training, Trial

# (epoch from 1, epochs, what is known of this rank's trials) -> nothing: what a live table shows
Watch = Callable[[int, int, Sequence[Outcome]], None]


def run_pass(
    experiment: Experiment,
    trials: Sequence[Trial],
    training: Training,
    *,
    state: Path,
    ranks: Ranks,
    on_epoch: OnEpoch | None = None,
    watch: Watch | None = None,
    keep: bool = True,
) -> list[Outcome]:
    """Train trials side by side; go on from ``state`` where a run of the same name was cut off.

    The epochs that the state holds are told to ``on_epoch`` again, so that a caller hears the same
    as in an unbroken run.

    Args:
        state: a name for what is saved, see ``resume``; the caller forgets it when all is written
        keep: keep the best weights of each trial (a search needs the scores alone)

    Returns:
        All outcomes in the order of the trials; with several ranks, on each of them.
    """
    numbers = ranks.mine(list(range(len(trials))))
    own = [trials[number] for number in numbers]
    trainer = Trainer(own, experiment.tasks, experiment.source(own), training, keep=keep)
    path = rank_file(state, ranks)
    told = _Teller(trainer, numbers, ranks, on_epoch)
    restore(trainer, path, ranks)
    for epoch in range(1, trainer.epoch + 1):
        told.tell(epoch, _scores(trainer.outcomes, epoch))
    saver = Saver(path, trainer)

    def after_epoch() -> None:
        saver.save()
        if watch:
            watch(trainer.epoch, training.epochs, trainer.outcomes)

    trainer.train(told.tell, after_epoch)
    for epoch in range(told.epoch + 1, training.epochs + 1) if ranks.size > 1 else ():
        told.tell(epoch, {})  # other ranks may still train: they wait for an answer
    return _collect(trainer.outcomes, ranks, len(trials))


class _Teller:
    """Tells every rank's scores to ``on_epoch``, under the numbers of the whole pass."""

    def __init__(
        self, trainer: Trainer, numbers: Sequence[int], ranks: Ranks, on_epoch: OnEpoch | None
    ) -> None:
        self.trainer, self.numbers, self.ranks, self.on_epoch = trainer, list(numbers), ranks, on_epoch
        self.epoch = 0

    def tell(self, epoch: int, scores: Mapping[int, float]) -> Collection[int]:
        self.epoch = epoch
        own = {self.numbers[index]: score for index, score in scores.items()}
        if self.on_epoch is None:
            return ()
        known = {number: score for part in self.ranks.gather(own) for number, score in part.items()}
        stopped = self.on_epoch(epoch, known)
        return {index for index, number in enumerate(self.numbers) if number in stopped}


def _scores(outcomes: Sequence[Outcome], epoch: int) -> dict[int, float]:
    return {
        index: outcome.scores[epoch - 1]
        for index, outcome in enumerate(outcomes)
        if len(outcome.scores) >= epoch
    }


def _collect(outcomes: list[Outcome], ranks: Ranks, count: int) -> list[Outcome]:
    parts = ranks.gather(outcomes)
    return [parts[number % ranks.size][number // ranks.size] for number in range(count)]
