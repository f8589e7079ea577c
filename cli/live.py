"""A live table of trials: bars on a terminal, a plain line now and then elsewhere."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from featcache.heads.training.trial import Outcome

LINES = 5  # plain lines a pass


class Live:
    """Called after every epoch of a pass; a pass that starts anew gets a new table."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self._bars: list[tqdm] = []  # type: ignore[type-arg, unused-ignore]

    def __call__(self, epoch: int, epochs: int, outcomes: "Sequence[Outcome]") -> None:
        if self.terminal:
            self._draw(epoch, epochs, outcomes)
        elif epoch == epochs or epoch % -(-epochs // LINES) == 0:
            rows = "; ".join(_rows(outcomes))
            print(f"epoch {epoch} of {epochs}: {rows}", file=sys.stderr, flush=True)

    def _draw(self, epoch: int, epochs: int, outcomes: "Sequence[Outcome]") -> None:
        rows = _rows(outcomes)
        if len(self._bars) != 1 + len(rows):
            self.close()
            bar = tqdm(total=epochs, desc=f"{len(outcomes)} trials", unit="epoch", initial=epoch - 1)
            notes = [tqdm(bar_format="{desc}", position=place) for place in range(1, 1 + len(rows))]
            self._bars = [bar, *notes]
        for note, row in zip(self._bars[1:], rows, strict=True):
            note.set_description_str(f"  {row}")
        self._bars[0].update(epoch - self._bars[0].n)
        if epoch == epochs or not any(_running(outcome, epoch) for outcome in outcomes):
            self.close()

    def close(self) -> None:
        """Leave the last state on the screen."""
        for bar in reversed(self._bars):
            bar.close()
        self._bars = []


def _rows(outcomes: "Sequence[Outcome]") -> list[str]:
    """One line a head: how many trials go on, and the best so far."""
    heads: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        heads.setdefault(outcome.trial.head, []).append(outcome)
    return [_row(head, own) for head, own in heads.items()]


def _row(head: str, outcomes: "Sequence[Outcome]") -> str:
    counts = {status: sum(own.status == status for own in outcomes) for status in ("pruned", "failed")}
    ended = "".join(f", {count} {status}" for status, count in counts.items() if count)
    scored = [own for own in outcomes if own.epoch]
    if not scored:
        return f"{head}: {len(outcomes)} trials{ended}"
    best = max(scored, key=lambda own: own.score)
    return (
        f"{head}: {len(outcomes)} trials{ended}, best valid {100 * best.score:.2f} "
        f"(lr {best.trial.lr:.2g}, epoch {best.epoch})"
    )


def _running(outcome: "Outcome", epoch: int) -> bool:
    return outcome.status == "done" and len(outcome.scores) == epoch
