"""A run with everything but the trials settled: estimate, search, train and test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featcache.heads.choice import Choice
from featcache.heads.data import Say
from featcache.heads.experiment import Experiment
from featcache.heads.finish import finish, run_digest
from featcache.heads.passes import Watch, run_pass
from featcache.heads.plan import cost_of, describe_cost
from featcache.heads.ranks import Ranks
from featcache.heads.results import RESULTS, Result, digest_of, read_results
from featcache.heads.resume import forget
from featcache.heads.search import Plan, search
from featcache.heads.study import Ranges
from featcache.heads.trial import Outcome, Training, Trial


class Run:
    """Training and testing with everything but the trials settled."""

    def __init__(
        self,
        experiment: Experiment,
        training: Training,
        out: Path,
        ranks: Ranks,
        say: Say,
        watch: Watch | None = None,
    ) -> None:
        self.experiment, self.training, self.out = experiment, training, out
        self.ranks, self.say, self.watch = ranks, say, watch

    def estimate(self, bases: Sequence[Trial], plan: Plan | None, count: int) -> None:
        """Say what the run costs."""
        epochs = self.training.epochs
        self.say(f"{self.experiment.cache.path}: {len(bases)} questions (task, layer, head)")
        for numbers in plan.rounds() if plan else ():
            kind = "Sobol" if numbers.stop <= (plan.sobol if plan else 0) else "TPE"
            cost = cost_of(self.experiment, [base for base in bases for _ in numbers], self.training)
            self.say(f"search, {kind} trials {numbers.start + 1}-{numbers.stop} of each (before pruning):")
            for line in describe_cost(cost, epochs):
                self.say(f"  {line}")
        cost = cost_of(self.experiment, [base for base in bases for _ in range(count)], self.training)
        self.say(f"training, {count} seed(s) of each:")
        for line in describe_cost(cost, epochs):
            self.say(f"  {line}")

    def search(self, bases: Sequence[Trial], ranges: Sequence[Ranges], plan: Plan) -> list[Trial]:
        """The best setting of each base that has one."""
        pairs = list(zip(bases, ranges, strict=True))
        found = search(
            self.experiment, pairs, self.training, plan, self.out, ranks=self.ranks, watch=self.watch
        )
        for base, best in zip(bases, found, strict=True):
            title = f"{self.experiment.tasks[base.task].title} {Choice(base.head, base.options).title}"
            if best is None:
                self.say(f"{title}: every trial of the search failed; fix a smaller --lr")
            else:
                self.say(
                    f"{title}: best of {plan.sobol + plan.tpe} trials: lr {best.trial.lr:.2g}, "
                    f"weight decay {best.trial.weight_decay:.2g} (valid {100 * best.score:.2f})"
                )
        return [best.trial for best in found if best is not None]

    def train_and_test(self, trials: Sequence[Trial], protocol: Mapping[str, Any]) -> list[Result]:
        """Train what ``out`` has no result of yet; all results, in the order of the trials.

        With several ranks the first tests and writes, and the others return nothing.
        """
        digests = [run_digest(self.experiment, trial, self.training, protocol) for trial in trials]
        known = self._known()
        todo = [trial for trial, digest in zip(trials, digests, strict=True) if digest not in known]
        if len(todo) < len(trials):
            self.say(f"{len(trials) - len(todo)} of {len(trials)} heads are in {self.out / RESULTS} already")
        if todo:
            state = self.out / "state" / digest_of(digests)
            outcomes = run_pass(
                self.experiment, todo, self.training, state=state, ranks=self.ranks, watch=self.watch
            )
            if not self.ranks.first:
                return []
            for outcome in outcomes:
                if outcome.status == "failed":
                    self.say(_failure(outcome))
            finished = finish(self.experiment, outcomes, self.training, self.out, protocol)
            known |= {result["run"]: result for result in finished}
            forget(state)
        return [known[digest] for digest in digests if digest in known]

    def _known(self) -> dict[str, Result]:
        """What is in ``out``, as the first rank sees it: the others must skip the same."""
        own: dict[str, Result] = {}
        if self.ranks.first and (self.out / RESULTS).exists():
            own = {result["run"]: result for result in read_results([self.out])}
        return self.ranks.gather(own)[0]


def _failure(outcome: Outcome) -> str:
    trial = outcome.trial
    return (
        f"{trial.head} (lr {trial.lr:g}, seed {trial.seed}) failed: its loss was not finite in "
        f"epoch {len(outcome.losses)}; try a smaller --lr"
    )
