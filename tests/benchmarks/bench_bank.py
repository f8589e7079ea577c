"""How much cheaper are many heads side by side than one after another? One table, one run.

    python tests/benchmarks/bench_bank.py            # minutes, CPU
    python tests/benchmarks/bench_bank.py --full     # every run measured, up to 8 of the plain loop
    python tests/benchmarks/bench_bank.py --device cuda --full

Tokens are made up (a label is a direction in a few tokens); every method trains the same trials on
the same batches. ``plain`` is what one would write without this project: a DataLoader over the cache
and a naive head each: keys and values of every token, the whole (B, N, P) map of similarities.
Linear heads train ten times as many epochs: one is over before it can be timed.
Times are the best of the repeats, after one warm-up; page cache warm.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nn_f
from torch.utils.data import DataLoader, Dataset

from featcache.cache import CacheLayout, CacheWriter, TokenCache
from featcache.heads.probing.experiment import Experiment, open_experiment
from featcache.heads.training.losses import build_loss
from featcache.heads.training.trainer import Trainer
from featcache.heads.training.trial import Training, Trial
from featcache.heads.training.validation import score_stack


@dataclass(frozen=True)
class Size:
    """Of the made-up data."""

    clips: int = 160
    tokens: int = 512
    dim: int = 768
    classes: int = 10
    batch: int = 32
    epochs: int = 1


def make(folder: Path, size: Size) -> Experiment:
    """A cache and its manifest in ``folder``, opened and joined."""
    random, layout = np.random.default_rng(0), CacheLayout(
        fingerprint={"encoder": "made up"}, layers=(12,), num_tokens=size.tokens, dim=size.dim,
        grid=(8, size.tokens // 8), has_cls=False,
    )  # fmt: skip
    directions = random.standard_normal((size.classes, size.dim)).astype(np.float32)
    lines = ["path,labels,id,split"]
    with CacheWriter.create_or_open(folder / "bench.zarr", layout) as writer:
        for index in range(size.clips):
            tokens = random.standard_normal((size.tokens, size.dim), dtype=np.float32)
            own = np.flatnonzero(random.random(size.classes) < 0.2)
            for label in own:
                tokens[random.integers(0, size.tokens, 4)] += directions[label]
            split = "train" if index < 0.8 * size.clips else "valid"
            lines.append(f"{index}.wav,{';'.join(f'l{label}' for label in own)},c{index},{split}")
            key = index.to_bytes(16, "big")
            writer.add(f"c{index}", key, {12: torch.from_numpy(tokens)}, None, size.tokens)
    (folder / "bench.csv").write_text("\n".join(lines) + "\n")
    return open_experiment(folder / "bench.zarr", [folder / "bench.csv"], device=torch.device("cpu"),
                           say=lambda line: None)  # fmt: skip


def trials(head: str, count: int) -> list[Trial]:
    low, high = (2e-3, 8e-2) if head == "protobin" else (1e-4, 7e-3)
    rates = np.geomspace(low, high, count)
    return [
        Trial(head=head, task=0, layer=12, lr=float(lr), weight_decay=1e-4, loss="asymmetric", seed=seed)
        for seed, lr in enumerate(rates)
    ]


def in_bank(experiment: Experiment, own: Sequence[Trial], training: Training) -> list[float]:
    """One pass; the validation score of each trial after the last epoch."""
    outcomes = Trainer(own, experiment.tasks, experiment.source(own), training).train()
    if experiment.device.type == "cuda":
        torch.cuda.synchronize()
    return [outcome.scores[-1] for outcome in outcomes]


def one_by_one(experiment: Experiment, own: Sequence[Trial], training: Training) -> list[float]:
    """The same engine, a pass for each trial."""
    return [in_bank(experiment, [trial], training)[0] for trial in own]


class Clips(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset over the cache, as one would write it for torch."""

    def __init__(self, cache: TokenCache, rows: np.ndarray, targets: np.ndarray) -> None:  # type: ignore[type-arg]
        self.cache, self.rows, self.targets = cache, rows, targets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        tokens = torch.from_numpy(np.array(self.cache[int(self.rows[index])], dtype=np.float32))
        return tokens, torch.from_numpy(self.targets[index])


class NaiveAttention(nn.Module):
    """Keys and values of every token."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.attention = nn.MultiheadAttention(dim, 12, bias=False, batch_first=True)
        self.classify = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.query.expand(len(tokens), -1, -1)
        pooled, _ = self.attention(query, tokens, tokens, need_weights=False)
        logits: Tensor = self.classify(pooled.squeeze(1))
        return logits


class NaivePrototypes(nn.Module):
    """Normalise, one product, a maximum over the tokens: the whole map is kept for autograd."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(20 * classes, dim) * 0.02)
        self.classify = nn.Linear(20 * classes, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        codes = torch.where(self.prototypes >= 0, 1.0, -1.0) + self.prototypes - self.prototypes.detach()
        similarity = nn_f.normalize(tokens, dim=-1) @ nn_f.normalize(codes, dim=-1).T  # (B, N, P)
        logits: Tensor = self.classify(similarity.amax(dim=1))
        return logits


class NaiveLinear(nn.Module):
    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classify(tokens.mean(dim=1))
        return logits


NAIVE = {"linear": NaiveLinear, "mhca": NaiveAttention, "protobin": NaivePrototypes}


def plain(experiment: Experiment, own: Sequence[Trial], training: Training) -> list[float]:
    """Each trial in a loop of its own over a DataLoader (the last validation pass included)."""
    task, cache, device = experiment.tasks[0], experiment.cache, experiment.device
    found = []
    for trial in own:
        torch.manual_seed(trial.seed)
        head = NAIVE[trial.head](cache.dim, len(task.classes)).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=trial.lr, weight_decay=trial.weight_decay)
        train = DataLoader(
            Clips(cache, task.train.rows, task.train.targets), training.batch_size, shuffle=True
        )
        valid = DataLoader(Clips(cache, task.valid.rows, task.valid.targets), training.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.epochs * len(train))
        loss = build_loss(trial.loss)
        for _ in range(training.epochs):
            for tokens, targets in train:
                optimizer.zero_grad()
                loss(head(tokens.to(device)), targets.to(device)).backward()
                optimizer.step()
                schedule.step()
            with torch.no_grad():
                logits = torch.cat([head(tokens.to(device)) for tokens, _ in valid])
        found.append(score_stack(logits.unsqueeze(0), task.valid.targets, task.kind)[0])
    return found


def timed(function: Callable[[], list[float]], repeats: int) -> tuple[float, list[float]]:
    """[s] of the fastest run, and the scores."""
    seconds, scores = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        scores = function()
        seconds.append(time.perf_counter() - began)
    return min(seconds), scores


def scaled(
    run: Callable[..., list[float]],
    experiment: Experiment,
    own: Sequence[Trial],
    training: Training,
    most: int,
) -> tuple[float, str]:
    """[s] of the trials one after another, each costing what it costs; from at most so many of them."""
    part = own[:: max(1, len(own) // most)][:most]
    seconds = timed(lambda: run(experiment, part, training), 1)[0]
    return seconds * len(own) / len(part), "" if len(part) == len(own) else f" (from {len(part)})"


def reads_per_epoch(experiment: Experiment, own: Sequence[Trial], training: Training) -> float:
    """How often an epoch reads each clip from the token store, counted in ``TokenCache.gather``."""
    count, gather = 0, TokenCache.gather

    def counted(self: TokenCache, rows: Sequence[int], *rest: object, **more: object) -> Tensor:
        nonlocal count
        count += len(rows)
        return gather(self, rows, *rest, **more)  # type: ignore[arg-type]

    try:
        TokenCache.gather = counted  # type: ignore[method-assign, assignment]
        in_bank(experiment, own, training)
    finally:
        TokenCache.gather = gather  # type: ignore[method-assign]
    clips = len(experiment.tasks[0].train) + len(experiment.tasks[0].valid)
    return count / clips / training.epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--full", action="store_true", help="measure every run alone instead of scaling from 3"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=2)
    for name, value in vars(Size()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    words = parser.parse_args()
    size = Size(**{name: getattr(words, name) for name in vars(Size())})
    with tempfile.TemporaryDirectory() as folder:
        experiment = make(Path(folder), size)
        object.__setattr__(experiment, "device", torch.device(words.device))
        object.__setattr__(experiment, "device_cache", "off" if words.device == "cpu" else "auto")
        report(experiment, size, words.full, words.repeats)


def report(experiment: Experiment, size: Size, full: bool, repeats: int) -> None:
    where = torch.cuda.get_device_name() if experiment.device.type == "cuda" else platform.processor()
    print(
        f"{where or platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; {size}\n"
    )
    print("| head | trials | bank [s] | / one | one by one [s] | bank / one by one | plain loop [s] | "
          "bank / plain | reads/epoch |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for head in ("linear", "mhca", "protobin"):
        epochs = 10 * size.epochs if head == "linear" else size.epochs
        training = Training(epochs=epochs, batch_size=size.batch, select="last")
        in_bank(experiment, trials(head, 1), training)  # warm up
        one = 0.0
        for count in (1, 8, 50):
            own = trials(head, count)
            bank, _ = timed(partial(in_bank, experiment, own, training), repeats)
            one = bank if count == 1 else one
            alone, note = scaled(one_by_one, experiment, own, training, most=50 if full else 3)
            naive, their_note = scaled(plain, experiment, own, training, most=8 if full else 3)
            reads = 0.0 if head == "linear" else reads_per_epoch(experiment, own, training)
            print(
                f"| {head} | {count} | {bank:.2f} | {bank / one:.2f} | {alone:.2f}{note} "
                f"| {bank / alone:.2f} | {naive:.2f}{their_note} | {bank / naive:.3f} | {reads:.2f} |",
                flush=True,
            )
    if experiment.device.type == "cpu":
        print("\nGPU: not measured (run with --device cuda where there is one).")


if __name__ == "__main__":
    main()
