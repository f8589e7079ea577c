"""Heads in a bank are exactly the heads they would be alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featcache.cache import TokenCache
from featcache.errors import FeatcacheError
from featcache.heads import HEADS
from featcache.heads.attentive import Attentive
from featcache.heads.base import Inputs, Parameters
from featcache.heads.data.loader import Learner, train_steps
from featcache.heads.data.tasks import Kind
from featcache.heads.linear import Linear
from featcache.heads.probing.experiment import Experiment, open_experiment
from featcache.heads.report.metrics import average_precision
from featcache.heads.training.losses import build_loss
from featcache.heads.training.optimizer import cosine
from featcache.heads.training.rng import Streams, mixed_seed, seeded
from featcache.heads.training.stack import Stack
from featcache.heads.training.trainer import Trainer
from featcache.heads.training.trial import Outcome, Training, Trial, fresh_head
from featcache.heads.training.validation import score_stack, stacked_average_precision

Make = Callable[..., tuple[Path, Path]]
CPU = torch.device("cpu")
# float32 rounding: a product over stacked heads may add in another order than one over a single head.
# Seen after 50 steps: below 1e-6 for weights of size 0.02 to 1.
ROUNDING = {"rtol": 1e-5, "atol": 2e-6}


def open_at(made: tuple[Path, Path], **options: object) -> Experiment:
    return open_experiment(made[0], [made[1]], device=CPU, say=lambda line: None, **options)  # type: ignore[arg-type]


def train(experiment: Experiment, trials: Sequence[Trial], training: Training) -> list[Outcome]:
    return Trainer(trials, experiment.tasks, experiment.source(trials), training).train()


def trial(head: str, **settings: object) -> Trial:
    known = {"task": 0, "layer": 2, "lr": 0.01, "weight_decay": 0.1, "loss": "asymmetric", "seed": 0}
    return Trial(head=head, **{**known, **settings})  # type: ignore[arg-type]


MIXED = [
    trial("linear", lr=0.003),
    trial("linear", lr=0.03, weight_decay=0.0, seed=1),
    trial("linear", loss="bce"),
    trial("linear", options={"dropout": 0.3}, seed=4),
    trial("linear", options={"dropout": 0.3}, seed=5),
    trial("mhca", options={"num_heads": 4}),
    trial("mhca", options={"num_heads": 4, "dropout": 0.2}, seed=7),
    trial("mhca", options={"num_heads": 4, "dropout": 0.2}, seed=8, lr=0.001),
    trial("protobin", options={"per_class": 3}, lr=0.04),
    trial("protobin", options={"per_class": 3}, seed=1),
    trial("protobin", options={"per_class": 3, "dropout": 0.2}, seed=2),
]  # fmt: skip


@pytest.mark.slow
def test_every_parameter_after_50_steps_is_that_of_the_trial_alone(make_tokens: Make) -> None:
    experiment = open_at(make_tokens(), device_cache="off")
    training = Training(epochs=9, batch_size=8, select="last", clip_norm=0.5)
    together = train(experiment, MIXED, training)
    steps = training.epochs * len(experiment.tasks[0].train) // 8
    assert steps >= 50
    for number, own in enumerate(MIXED):
        (alone,) = train(experiment, [own], training)
        assert alone.state is not None
        assert together[number].state is not None
        for name, value in alone.state.items():
            torch.testing.assert_close(together[number].state[name], value, **ROUNDING)
        np.testing.assert_allclose(together[number].losses, alone.losses, rtol=1e-4)


@pytest.mark.parametrize("name", ["linear", "mhca", "protobin"])
def test_a_trial_is_what_a_plain_loop_of_torch_trains(name: str, make_tokens: Make) -> None:
    experiment = open_at(make_tokens())
    options = {"mhca": {"num_heads": 4}, "protobin": {"per_class": 3}}.get(name, {})
    own = trial(name, options={**options, "dropout": 0.2}, seed=3)
    training = Training(epochs=9, batch_size=8, select="last", clip_norm=0.5, warmup_epochs=1)
    (banked,) = train(experiment, [replace(own, seed=9), own], training)[1:]
    plain = plain_loop(experiment, own, training)
    assert banked.state is not None
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(banked.state[name], value, **ROUNDING)


def plain_loop(experiment: Experiment, own: Trial, training: Training) -> nn.Module:
    """The training of one head as anyone would write it."""
    task, source = experiment.tasks[own.task], experiment.source([own])
    learner = Learner(task.train.rows, own.seed)
    head, loss = fresh_head(own, task, experiment.cache), build_loss(own.loss)
    head.train()
    optimizer = torch.optim.AdamW(head.param_groups(own.lr, own.weight_decay))
    base = [group["lr"] for group in optimizer.param_groups]
    batches = [
        list(train_steps(source, [learner], training.batch_size, training.seed, epoch))
        for epoch in range(training.epochs)
    ]
    total, step = sum(map(len, batches)), 0
    for epoch in range(training.epochs):
        for batch in train_steps(source, [learner], training.batch_size, training.seed, epoch):
            share = cosine(step, total, warmup=round(training.warmup_epochs * len(batches[0])))
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * share
            with seeded(mixed_seed(own.seed, step)):
                logits = head(*batch.batch.inputs(_reads(own), experiment.cache.layers, own.layer, False))
            optimizer.zero_grad()
            loss(logits, torch.from_numpy(task.train.targets[batch.positions])).backward()
            if training.clip_norm:
                nn.utils.clip_grad_norm_(head.parameters(), training.clip_norm)
            optimizer.step()
            step += 1
    return head


def _reads(own: Trial) -> str:
    return HEADS[own.head].reads


@pytest.mark.parametrize("name", sorted(HEADS))
def test_stacked_logits_are_those_of_each_head(name: str, make_tokens: Make) -> None:
    experiment = open_at(make_tokens(layers=(1, 2), has_cls=True, dim=96))
    own = [trial(name, seed=seed) for seed in range(3)]
    heads = [fresh_head(each, experiment.tasks[0], experiment.cache) for each in own]
    batch = experiment.source(own).read(experiment.tasks[0].train.rows[:10])
    inputs = batch.inputs(HEADS[name].reads, experiment.cache.layers, 2, True)
    with torch.no_grad():
        plain = torch.stack([head.eval()(*inputs) for head in heads])
        stacked = Stack(heads, CPU).logits(inputs, None)
    torch.testing.assert_close(stacked, plain, rtol=1e-5, atol=1e-5)


def test_dropout_of_a_head_does_not_depend_on_its_neighbours() -> None:
    values = torch.ones(3, 4, 50)
    together = Streams([5, 6, 7], 9, CPU).dropout(values, 0.5)
    alone = Streams([6], 9, CPU).dropout(values[:1], 0.5)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(Streams([6], 10, CPU).dropout(values[:1], 0.5), alone)


def test_a_trial_whose_loss_is_not_finite_fails_and_the_others_go_on(make_tokens: Make) -> None:
    experiment = open_at(make_tokens())
    training = Training(epochs=4, batch_size=16, select="last")
    sound = trial("linear", seed=1)
    bad, good = train(experiment, [trial("linear", lr=1e38), sound], training)
    assert (bad.status, good.status) == ("failed", "done")
    assert bad.state is None
    (alone,) = train(experiment, [sound], training)
    assert good.scores == pytest.approx(alone.scores)


def test_a_trial_that_stops_early_leaves_the_others_as_they_were(make_tokens: Make) -> None:
    experiment = open_at(make_tokens())
    training = Training(epochs=12, batch_size=16, patience=2)
    trials = [trial("linear", lr=lr, seed=seed) for seed, lr in enumerate([1e-9, 0.01, 0.03])]
    outcomes = train(experiment, trials, training)
    assert len(outcomes[0].scores) < max(len(outcome.scores) for outcome in outcomes)
    for own, outcome in zip(trials, outcomes, strict=True):
        (alone,) = train(experiment, [own], training)
        assert outcome.scores == pytest.approx(alone.scores)
        assert outcome.epoch == alone.epoch


def test_the_best_epoch_is_kept_not_the_last(make_tokens: Make) -> None:
    experiment = open_at(make_tokens())
    (outcome,) = train(experiment, [trial("protobin", lr=0.02)], Training(epochs=8, batch_size=16))
    assert outcome.epoch == 1 + int(np.argmax(outcome.scores))


def test_of_equal_validation_scores_the_last_epoch_is_kept(make_tokens: Make) -> None:
    """A few held-out clips tie all the time; the first of many equal epochs is the least trained."""
    experiment = open_at(make_tokens(clips=24, single=True))
    task = experiment.tasks[0]
    assert len(task.valid) == 6
    (outcome,) = train(
        experiment, [trial("protobin", lr=0.05, loss="cross-entropy")], Training(epochs=40, batch_size=8)
    )
    best = max(outcome.scores)
    assert outcome.scores.count(best) > 1
    assert outcome.epoch == 40 - outcome.scores[::-1].index(best)
    assert outcome.best_at == 1 + outcome.scores.index(best)


def test_a_plateau_ends_by_itself_with_a_falling_rate_and_keeps_the_end(make_tokens: Make) -> None:
    experiment = open_at(make_tokens(clips=24, single=True))
    training = Training(epochs=60, batch_size=8, schedule="plateau", patience=4, min_epochs=8, decay=0.25)
    ended = train(
        experiment, [trial("protobin", lr=lr, loss="cross-entropy") for lr in (0.05, 1e-6)], training
    )
    for outcome in ended:
        assert outcome.status == "done"
        assert outcome.plateau
        assert outcome.decays_from is not None
        assert outcome.decays_from >= max(8, outcome.best_at + 4)
        assert len(outcome.scores) == outcome.decays_from + max(1, round(0.25 * outcome.decays_from))
        assert outcome.epoch == len(outcome.scores)  # six held-out clips choose nothing


def test_a_head_that_gets_better_to_the_end_did_not_reach_its_plateau(make_tokens: Make) -> None:
    experiment = open_at(make_tokens(clips=24, single=True))
    training = Training(epochs=10, batch_size=8, schedule="plateau", patience=50, decay=0.25)
    (outcome,) = train(experiment, [trial("protobin", lr=0.01, loss="cross-entropy")], training)
    assert outcome.plateau is False
    assert len(outcome.scores) == 10


def test_each_head_of_a_plateau_ends_as_it_would_alone(make_tokens: Make) -> None:
    experiment = open_at(make_tokens(clips=48, single=True))
    training = Training(epochs=30, batch_size=8, schedule="plateau", patience=3, min_epochs=2, passes=2)
    trials = [trial("protobin", lr=lr, loss="cross-entropy") for lr in (0.05, 0.01, 1e-6)]
    together = train(experiment, trials, training)
    for own, outcome in zip(trials, together, strict=True):
        (alone,) = train(experiment, [own], training)
        assert (alone.decays_from, alone.scores) == (outcome.decays_from, outcome.scores)
        assert alone.state is not None
        assert outcome.state is not None
        for name, value in alone.state.items():
            torch.testing.assert_close(outcome.state[name], value, **ROUNDING)


def test_out_of_memory_halves_the_group_and_changes_nothing(
    make_tokens: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = open_at(make_tokens())
    training = Training(epochs=3, batch_size=16, select="last")
    trials = [trial("mhca", options={"num_heads": 4}, lr=0.01 / (1 + k)) for k in range(5)]
    plain = train(experiment, trials, training)
    form = Attentive.stacked_pool
    sizes = []

    def scarce(head: Attentive, own: Parameters, inputs: Inputs) -> Tensor:
        K = len(own["query"])
        sizes.append(K)
        if K > 2:
            raise torch.OutOfMemoryError("no room")
        return form(head, own, inputs)

    monkeypatch.setattr(Attentive, "stacked_pool", scarce)
    split = train(experiment, trials, training)
    assert max(sizes) == 5
    assert max(sizes[-6:]) <= 2
    for one, other in zip(plain, split, strict=True):
        assert one.state is not None
        assert other.state is not None
        for name, value in one.state.items():
            torch.testing.assert_close(other.state[name], value, **ROUNDING)


def test_a_head_too_large_for_memory_ends_in_advice(
    make_tokens: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = open_at(make_tokens())

    def scarce(*_: object) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Linear, "stacked_pool", scarce)
    with pytest.raises(FeatcacheError, match="use a smaller batch_size"):
        train(experiment, [trial("linear"), trial("linear", seed=1)], Training(epochs=1, batch_size=16))


def test_the_average_precision_of_a_stack_is_that_of_each_head() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((60, 5)) < 0.3).astype(np.uint8)
    labels[:, 4] = 0  # no positives
    scores = random.standard_normal((3, 60, 5)).round(1)  # with ties
    found = stacked_average_precision(torch.from_numpy(scores), torch.from_numpy(labels))
    for own, each in zip(scores, found, strict=True):
        np.testing.assert_allclose(each.numpy(), average_precision(labels, own), rtol=1e-12)


@pytest.mark.parametrize("kind", ["multi-label", "single-label"])
def test_a_head_with_a_logit_that_is_no_number_has_no_score(kind: Kind) -> None:
    logits = torch.randn(2, 6, 3)
    logits[1, 2, 1] = torch.nan
    labels = np.array([0, 1, 2, 0, 1, 2])
    targets = labels if kind == "single-label" else np.eye(3, dtype=np.uint8)[labels]
    sound, broken = score_stack(logits, targets, kind)
    assert np.isfinite(sound)
    assert np.isnan(broken)


def test_one_epoch_reads_each_clip_once_however_many_heads(
    make_tokens: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = open_at(make_tokens(), device_cache="off")
    read: list[int] = []
    gather = TokenCache.gather

    def counted(self: TokenCache, rows: Sequence[int], *rest: object, **more: object) -> Tensor:
        read.extend(rows)
        return gather(self, rows, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(TokenCache, "gather", counted)
    task = experiment.tasks[0]
    trials = [trial(name, seed=seed) for name in ("linpre", "protobin", "linear-mean") for seed in range(3)]
    train(experiment, trials, Training(epochs=2, batch_size=16))
    assert sorted(read) == sorted(2 * [*task.train.rows.tolist(), *task.valid.rows.tolist()])


def test_linear_heads_never_touch_the_token_map(make_tokens: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = open_at(make_tokens(has_cls=True))
    monkeypatch.setattr(TokenCache, "gather", None)
    train(experiment, [trial("linear"), trial("linear-mean")], Training(epochs=1, batch_size=16))


@pytest.mark.gpu
@pytest.mark.parametrize("device_cache", ["on", "off"])
def test_a_gpu_trains_what_the_cpu_trains(device_cache: str, make_tokens: Make) -> None:
    made = make_tokens(dim=96)
    trials = [trial("linear"), trial("mhca"), trial("mhca", seed=1), trial("ep")]
    training = Training(epochs=3, batch_size=16, select="last")
    cpu = train(open_at(made), trials, training)
    gpu = open_experiment(
        made[0], [made[1]], device=torch.device("cuda"), say=lambda line: None, device_cache=device_cache
    )  # type: ignore[arg-type]
    for one, other in zip(cpu, train(gpu, trials, training), strict=True):
        np.testing.assert_allclose(other.losses, one.losses, rtol=2e-2)
