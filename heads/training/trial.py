"""What is trained: one head with one setting, what all heads of a pass share, and what came of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from featcache.heads.base import Head, HeadSpec
from featcache.heads.data.tasks import Task
from featcache.heads.registry import build_head, head_spec
from featcache.heads.training.rng import mixed_seed, seeded

if TYPE_CHECKING:
    from featcache.cache import TokenCache


Select = Literal["best", "last"]
Schedule = Literal["cosine", "plateau"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One head to be trained: its family, what it reads, its optimizer and its seed."""

    head: str
    task: int  # which of the pass's tasks
    layer: int  # which layer's tokens
    lr: float
    weight_decay: float
    loss: str
    seed: int = 0  # of the initial weights, of dropout, and of its own order of clips
    options: Mapping[str, Any] = field(default_factory=dict)  # of the head
    searched: tuple[str, ...] = ()  # the options that a search chose

    @property
    def spec(self) -> HeadSpec:
        """The head as it was when the run began, whatever has become of a user's file since."""
        return head_spec(self.head, again=False)

    @property
    def shape(self) -> tuple[object, ...]:
        """Trials that agree in this can be stacked."""
        return (
            self.head, self.task, self.seed, self.layer, self.loss, repr(sorted(self.options.items())),
        )  # fmt: skip

    @property
    def identity(self) -> dict[str, Any]:
        """What its numbers follow from: its settings and, of a user's head, the digest of the source."""
        own = asdict(self) | {"code": self.spec.code}
        return {name: value for name, value in own.items() if value or name not in ("searched", "code")}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How every head of a pass is trained.

    An epoch is what lies between two validation scores: ``passes`` over the train clips. With the
    schedule "plateau" the learning rate stays constant until the validation score has not improved
    for ``patience`` epochs (none ends before ``min_epochs``), then falls to zero over ``decay`` of
    the steps so far; ``epochs`` is the most a head may take.
    """

    epochs: int = 30
    batch_size: int = 128
    seed: int = 0  # of the common order of clips, which each head's seed shuffles within a few batches
    warmup_epochs: float = 0.0  # linear, from zero
    final_lr: float = 0.0  # where the cosine ends, as a share of the learning rate
    clip_norm: float | None = None  # largest norm of one head's gradient
    patience: int | None = None  # epochs without a better validation score before a head stops
    select: Select = "best"  # which epoch's weights are kept; of equal scores the last
    schedule: Schedule = "cosine"
    passes: int = 1  # over the train clips in an epoch
    min_epochs: int = 0
    decay: float = 0.25


Status = Literal["done", "pruned", "failed"]


@dataclass(kw_only=True)
class Outcome:
    """What became of a trial."""

    trial: Trial
    status: Status = "done"
    scores: list[float] = field(default_factory=list)  # on valid, one an epoch
    losses: list[float] = field(default_factory=list)  # on train, the mean of an epoch
    epoch: int = 0  # the one whose weights are kept, from 1
    best_at: int = 0  # the first epoch that no later one was better than
    decays_from: int | None = None  # the epoch after which the learning rate falls
    plateau: bool | None = (
        None  # whether it falls because nothing got better; None: the schedule does not ask
    )
    state: dict[str, Any] | None = None  # its weights, on the CPU
    seconds: float = 0.0  # [s] of the pass until the trial ended

    @property
    def score(self) -> float:
        """On valid, at the epoch that was kept."""
        return self.scores[self.epoch - 1] if self.epoch else float("nan")


def fresh_head(trial: Trial, task: Task, cache: "TokenCache") -> Head:
    """A head with the initial weights of the trial's seed, whatever is drawn elsewhere."""
    with seeded(mixed_seed(trial.seed)):
        return build_head(
            trial.spec,
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
