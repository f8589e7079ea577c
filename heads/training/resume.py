"""Saving where a pass stands, so that a run that was cut off goes on from its last saved epoch."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch

from featcache.heads.training.distributed import Ranks
from featcache.heads.training.trainer import Trainer

SHARE = 0.1  # of the time may go into saving; where states are large, not every epoch is saved


class Saver:
    """Writes the state of a trainer after epochs: whole, or not at all."""

    def __init__(self, path: Path, trainer: Trainer) -> None:
        self.path, self.trainer = path, trainer
        self._next = time.perf_counter()

    def save(self) -> None:
        """Save now, unless saving would take more than its share of the time."""
        began = time.perf_counter()
        if began < self._next:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        torch.save(self.trainer.state(), temporary)
        temporary.replace(self.path)
        ended = time.perf_counter()
        self._next = ended + (ended - began) / SHARE


def restore(trainer: Trainer, path: Path, ranks: Ranks) -> None:
    """Set a trainer to its saved state, if there is one; all ranks to the same epoch, or none."""
    state = _load(path, trainer.device)
    epochs = ranks.gather(state["epoch"] if state else 0)
    if state and len(set(epochs)) == 1:
        trainer.restore(state)


def forget(state: Path) -> None:
    """Remove what was saved under this name, by any rank."""
    for path in state.parent.glob(f"{state.name}.*"):
        path.unlink(missing_ok=True)


def rank_file(state: Path, ranks: Ranks) -> Path:
    """The file of this rank."""
    return state.with_name(f"{state.name}.{ranks.rank}-of-{ranks.size}.pt")


def _load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """A saved state; None where there is none, or none that can be read (then training starts over)."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError):
        return None
    return state
