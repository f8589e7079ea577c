"""From a trial to its head: with the weights of its seed, or with those that it learned."""

from typing import TYPE_CHECKING

from featcache.heads.base import Head
from featcache.heads.data import Task
from featcache.heads.streams import mixed_seed, seeded
from featcache.heads.table import build_head
from featcache.heads.trial import Outcome, Trial

if TYPE_CHECKING:
    from featcache.cache import TokenCache


def fresh_head(trial: Trial, task: Task, cache: "TokenCache") -> Head:
    """A head with the initial weights of the trial's seed, whatever is drawn elsewhere."""
    with seeded(mixed_seed(trial.seed)):
        return build_head(
            trial.head,
            cache.dim,
            len(task.classes),
            grid=cache.grid,
            num_layers=len(cache.layers),
            **trial.options,
        )


def trained_head(outcome: Outcome, task: Task, cache: "TokenCache") -> Head:
    """The head that a trial left, on the CPU and in evaluation mode."""
    head = fresh_head(outcome.trial, task, cache)
    if outcome.state is not None:
        head.load_state_dict(outcome.state)
    return head.eval()
