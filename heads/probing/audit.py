"""What a storage dtype costs a probe: the same heads trained at full and at stored precision.

The heads train alike and without search: the difference is the result, not the level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from featcache.cache.format.channels import SAMPLE_CLIPS, channel_errors, channel_scale
from featcache.cache.format.dtypes import store_dtype
from featcache.cache.format.quantize import round_trip
from featcache.cache.read.reader import TokenCache
from featcache.cache.write.plain import largest_magnitudes
from featcache.errors import InputError
from featcache.heads.registry import build_head, head_spec

if TYPE_CHECKING:
    from featcache.heads.data.tasks import Part, Question

# One of each way of reading: the mean of the stored tokens (a cache's own `mean` is exact whatever
# its dtype), a softmax over tokens, a maximum over tokens. Head -> learning rate.
AUDITED = {"linear-mean": 1e-2, "mhca": 1e-3, "protobin": 1e-2}

_BATCH = 64
_WEIGHT_DECAY = 1e-4
_DRAWS = 300

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """One head at one storage dtype; scores are means over the seeds."""

    head: str
    dtype: str
    bytes_per_token: float
    error: float  # relative L2 error of the stored tokens: the largest channels decide it
    channel_error: (
        float  # root mean square error of a channel in its standard deviations: the median channel's
    )
    worst_channel_error: float
    metric: str  # "mAP" or "accuracy", on the test clips
    full: float
    stored: float
    difference: float  # stored - full
    low: float  # 95 % interval of the difference, over test clips drawn with replacement
    high: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Clips in memory."""

    tokens: Tensor  # (n, N, D) float
    valid: Tensor  # (n, N) bool
    targets: Tensor  # (n, C) float32, 0 or 1


def audit_cache(
    cache: TokenCache,
    question: "Question",
    dtypes: Sequence[str],
    *,
    heads: Sequence[str] = tuple(AUDITED),
    clips: int = 1000,
    epochs: int = 15,
    seeds: int = 3,
) -> Iterator[Audit]:
    """Train each head on the cache's last layer as it is and as each of ``dtypes`` would store it.

    Args:
        cache: at full precision
        question: which rows train and test, and their labels
        clips: at most so many of train, and of test, drawn with a fixed seed and held in memory

    Raises:
        InputError: the cache is quantized already, or there is nothing to test on.
    """
    if cache.layout.store.scaled:
        raise InputError(
            f"{cache.path} is stored as {cache.dtype}: what that lost cannot be measured from it; "
            "audit the cache that it was converted from"
        )
    if not len(question.test):
        raise InputError(f"{question.task.name} has no test split to measure the difference on")
    classes = len(question.task.classes)
    train, test = (
        _sample(cache, part, classes, clips) for part in (question.task.train, question.test.open())
    )
    grid, metric = cache.grid, question.task.metric
    full = {head: [_scores(head, train, test, grid, epochs, seed) for seed in range(seeds)] for head in heads}
    first = zip(
        train.tokens[:SAMPLE_CLIPS], train.valid[:SAMPLE_CLIPS], strict=True
    )  # as a writer takes them
    largest = [largest_magnitudes(clip[mask].float()) for clip, mask in first]
    scale = torch.from_numpy(channel_scale(np.max(largest, axis=0)))
    for dtype in dtypes:
        kept = (
            replace(train, tokens=store(train.tokens, dtype, scale)),
            replace(test, tokens=store(test.tokens, dtype, scale)),
        )
        channels = channel_errors(test.tokens[test.valid].numpy(), kept[1].tokens[test.valid].numpy())
        size = cache.dim * store_dtype(dtype).bits / 8 + 4 * store_dtype(dtype).scaled
        error = float((kept[1].tokens - test.tokens.float()).norm() / test.tokens.float().norm())
        for head in heads:
            stored = [_scores(head, *kept, grid, epochs, seed) for seed in range(seeds)]
            compared = _compare(metric, test.targets.numpy(), full[head], stored)
            yield Audit(
                head=head, dtype=dtype, bytes_per_token=size, error=error, metric=metric,
                channel_error=float(np.median(channels)), worst_channel_error=float(channels.max()),
                **compared,
            )  # fmt: skip


def store(tokens: Tensor, dtype: str, channels: Tensor) -> Tensor:
    """Tokens (n, N, D) as a cache of that dtype with these scales of channels gives them back, float32."""
    return torch.stack([round_trip(clip, dtype, channels) for clip in tokens])


def _sample(cache: TokenCache, part: "Part", classes: int, clips: int) -> Sample:
    chosen = np.sort(np.random.default_rng(0).permutation(len(part))[:clips])
    rows = part.rows[chosen].tolist()
    targets = torch.as_tensor(part.targets[chosen])
    if targets.ndim == 1:
        targets = torch.nn.functional.one_hot(targets, classes)
    return Sample(tokens=cache.tokens(rows), valid=cache.mask(rows), targets=targets.float())


def _scores(name: str, train: Sample, test: Sample, grid: tuple[int, int], epochs: int, seed: int) -> Array:
    """Train one head; its logits (n, C) for the test clips. The same seed makes the same batches."""
    torch.manual_seed(seed)
    head = build_head(name, train.tokens.shape[-1], train.targets.shape[1], grid=grid)
    pooled = head_spec(name).reads in ("mean", "cls")
    optimizer = torch.optim.AdamW(head.param_groups(AUDITED.get(name, 1e-3), _WEIGHT_DECAY))
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(train.tokens)), _BATCH):
            loss = binary_cross_entropy_with_logits(_logits(head, pooled, train, rows), train.targets[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    head.eval()
    with torch.no_grad():
        parts = [
            _logits(head, pooled, test, rows) for rows in torch.split(torch.arange(len(test.tokens)), _BATCH)
        ]
    return torch.cat(parts).numpy()


def _logits(head: torch.nn.Module, pooled: bool, sample: Sample, rows: Tensor) -> Tensor:
    tokens, valid = sample.tokens[rows].float(), sample.valid[rows]
    mean = (tokens * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp_min(1)
    logits: Tensor = head(None if pooled else tokens, mean, None if pooled else valid)
    return logits


def _compare(metric: str, labels: Array, full: list[Array], stored: list[Array]) -> dict[str, float]:
    """Mean scores over the seeds, their difference, and its interval over the test clips."""
    from featcache.heads.report.metrics import mean_average_precision, top1

    score = mean_average_precision if metric == "mAP" else top1

    def means(rows: Array) -> Array:
        return np.array(
            [np.mean([score(labels[rows], run[rows]) for run in runs]) for runs in (full, stored)]
        )

    random, n = np.random.default_rng(0), len(labels)
    at_full, at_stored = means(np.arange(n))
    drawn = np.array([means(random.integers(0, n, n)) for _ in range(_DRAWS)])
    low, high = np.nanquantile(drawn[:, 1] - drawn[:, 0], [0.025, 0.975])
    return {
        "full": float(at_full),
        "stored": float(at_stored),
        "difference": float(at_stored - at_full),
        "low": float(low),
        "high": float(high),
    }
