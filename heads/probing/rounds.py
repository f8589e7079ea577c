"""A probe's rounds of training: the search, where one is asked for, then what is trained and tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featcache.cache.read.join import Say
from featcache.heads.probing.evaluate import describe, evaluate, run_digest
from featcache.heads.probing.experiment import Experiment
from featcache.heads.probing.search import SearchPlan, search
from featcache.heads.probing.tracking import Tracking
from featcache.heads.registry import Choice
from featcache.heads.report.results import RESULTS, Result, digest_of, known_results
from featcache.heads.training.distributed import Ranks
from featcache.heads.training.resume import forget
from featcache.heads.training.run import Watch, run_pass
from featcache.heads.training.trial import Outcome, Training, Trial

if TYPE_CHECKING:
    from featcache.heads.probing.study import Ranges


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What all rounds of one probe share: where results go, and who hears of them."""

    experiment: Experiment
    out: Path
    record: Mapping[str, Any]  # how hyperparameters are chosen; part of the digest and line of a result
    ranks: Ranks
    say: Say
    watch: Watch | None
    tracking: Tracking

    def best(
        self, bases: Sequence[Trial], ranges: "Sequence[Ranges]", training: Training, plan: SearchPlan
    ) -> list[Trial]:
        """The best setting of each base that has one."""
        pairs = list(zip(bases, ranges, strict=True))
        found = search(
            self.experiment, pairs, training, plan, self.out, ranks=self.ranks, say=self.say, watch=self.watch
        )
        for base, best in zip(bases, found, strict=True):
            own = {name: value for name, value in base.options.items() if name not in base.searched}
            title = f"{self.experiment.tasks[base.task].title} {Choice(base.head, own).title}"
            if best is None:
                self.say(f"{title}: every trial of the search failed; fix a smaller lr")
            else:
                words = "".join(f", {name} {best.trial.options[name]}" for name in base.searched)
                self.say(
                    f"{title}: best of {plan.sobol + plan.tpe} trials: lr {best.trial.lr:.2g}, "
                    f"weight decay {best.trial.weight_decay:.2g}{words} (valid {100 * best.score:.2f})"
                )
        return [best.trial for best in found if best is not None]

    def train_and_test(self, trials: Sequence[Trial], training: Training) -> list[Result]:
        """Train what ``out`` has no result of yet and test it; all results, in the order of the trials.

        With several ranks the first tests and writes, and the others return nothing.
        """
        digests = [run_digest(self.experiment, trial, training, self.record) for trial in trials]
        # As the first rank sees it: the others must skip the same.
        known = self.ranks.gather(known_results(self.out) if self.ranks.first else {})[0]
        todo = [trial for trial, digest in zip(trials, digests, strict=True) if digest not in known]
        if len(todo) < len(trials):
            self.say(f"{len(trials) - len(todo)} of {len(trials)} heads are in {self.out / RESULTS} already")
        if todo:
            state = self.out / "state" / digest_of(digests)
            new = self._new(todo, training, state)
            if not self.ranks.first:
                return []
            known |= {result["run"]: result for result in new}
        return [known[digest] for digest in digests if digest in known]

    def _new(self, trials: Sequence[Trial], training: Training, state: Path) -> list[Result]:
        """Train these trials and, as the first rank, test them."""
        watch = self.watch
        if self.ranks.size == 1:  # of several, each trains others: what they tell comes with the result
            begun = [describe(self.experiment, Outcome(trial=own), training, self.record) for own in trials]
            watch = self.tracking.following([Result(line, self.out) for line in begun], watch)
        outcomes = run_pass(self.experiment, trials, training, state=state, ranks=self.ranks, watch=watch)
        if not self.ranks.first:
            return []
        for outcome in outcomes:
            if outcome.status == "failed":
                trial = outcome.trial
                self.say(
                    f"{trial.head} (lr {trial.lr:g}, seed {trial.seed}) failed: its loss was not finite in "
                    f"epoch {len(outcome.losses)}; try a smaller lr"
                )
        new = evaluate(self.experiment, outcomes, training, self.out, self.record)
        forget(state)
        for result in new:
            self.tracking.end(result)
        return new
