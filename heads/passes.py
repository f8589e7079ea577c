"""One pass of the bank that survives interruption: its state is saved as epochs end."""

import os
import pickle
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from featcache.heads.bank import Bank, OnEpoch
from featcache.heads.experiment import Experiment
from featcache.heads.trial import Outcome, Training, Trial

# (epoch, trials, outcomes so far) -> nothing: what a live table shows
Watch = Callable[[int, Sequence[Outcome]], None]
SHARE = 0.1  # of the time may go into saving; where states are large, not every epoch is saved


def run_pass(
    experiment: Experiment,
    trials: Sequence[Trial],
    training: Training,
    *,
    state: Path,
    on_epoch: OnEpoch | None = None,
    watch: Watch | None = None,
) -> list[Outcome]:
    """Train trials side by side; go on from ``state`` where a run of the same name was cut off.

    The epochs that the state holds are told to ``on_epoch`` and ``watch`` again, so a caller sees
    the same calls as in an unbroken run.
    """
    bank = Bank(trials, experiment.tasks, experiment.source(trials), training)
    known = _load(state, bank.device)
    if known is not None:
        bank.restore(known)
        _retell(bank.outcomes, bank.epoch, on_epoch)
    saver = _Saver(state, bank)

    def after_epoch() -> None:
        saver.save()
        if watch:
            watch(bank.epoch, bank.outcomes)

    return bank.train(on_epoch, after_epoch)


def _retell(outcomes: Sequence[Outcome], epochs: int, on_epoch: OnEpoch | None) -> None:
    for epoch in range(1, epochs + 1) if on_epoch else ():
        assert on_epoch is not None
        on_epoch(
            epoch,
            {
                number: outcome.scores[epoch - 1]
                for number, outcome in enumerate(outcomes)
                if len(outcome.scores) >= epoch
            },
        )


class _Saver:
    """Writes the state of a bank now and then: whole, or not at all."""

    def __init__(self, path: Path, bank: Bank) -> None:
        self.path, self.bank = path, bank
        self._next = time.perf_counter()

    def save(self) -> None:
        began = time.perf_counter()
        if began < self._next:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        torch.save(self.bank.state(), temporary)
        temporary.replace(self.path)
        ended = time.perf_counter()
        self._next = ended + (ended - began) / SHARE


def _load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """A saved state; None where there is none, or none that can be read (then training starts over)."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return state
