"""One vector a clip, out of its tokens: the table ``FEATURES``, and all of them from one pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.pooling import max_tokens, mean_tokens, seen

if TYPE_CHECKING:
    from featcache.cache import TokenCache

BLOCK = 64 << 20  # [bytes] of float32 tokens held at once
Grid = tuple[int, int]
Name = tuple[str, int]  # of features, and the layer


def sd_tokens(tokens: Tensor, valid: Tensor) -> Tensor:
    """Standard deviation of each feature over the valid tokens: (B, N, D) to (B, D).

    >>> sd_tokens(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]]))
    tensor([[1.]])
    """
    spread = (tokens - mean_tokens(tokens, valid).unsqueeze(1)) ** 2
    return mean_tokens(spread, valid).sqrt()


def tf_mean(tokens: Tensor, valid: Tensor, grid: Grid) -> Tensor:
    """Mean over time, frequencies concatenated: (B, N, D) to (B, F*D), as the head ``tfmean`` has it."""
    F, T = grid
    B, _, D = tokens.shape
    return mean_tokens(tokens.reshape(B, T, F * D), seen(valid).reshape(B, T, F).any(dim=-1))


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """One row of the table of features: which stored vector comes first, and what is made of tokens."""

    name: str
    vector: str | None = None  # "mean" or "cls": a stored column
    pool: Callable[[Tensor, Tensor, Grid], Tensor] | None = None  # (tokens, valid, grid) -> (B, width)
    summary: str

    def width(self, dim: int, grid: Grid) -> int:
        """How many numbers a clip has."""
        rows = grid[0] if self.pool is tf_mean else int(self.pool is not None)
        return dim * (rows + int(self.vector is not None))


_SPECS = (
    FeatureSpec(name="cls", vector="cls", summary="the cls token, where the encoder has one"),
    FeatureSpec(name="mean", vector="mean", summary="the mean of the valid tokens"),
    FeatureSpec(
        name="mean+sd", vector="mean", pool=lambda tokens, valid, grid: sd_tokens(tokens, valid),
        summary="their mean and standard deviation",
    ),
    FeatureSpec(
        name="mean+max", vector="mean", pool=lambda tokens, valid, grid: max_tokens(tokens, valid),
        summary="their mean and maximum",
    ),
    FeatureSpec(name="tfmean", pool=tf_mean, summary="their mean over time, frequencies concatenated"),
)  # fmt: skip

FEATURES: dict[str, FeatureSpec] = {spec.name: spec for spec in _SPECS}


def feature_bytes(cache: "TokenCache", name: str, clips: int) -> int:
    """[bytes] of the float32 features of so many clips."""
    return 4 * clips * FEATURES[name].width(cache.dim, cache.grid)


class PooledFeatures:
    """Features of some clips of a cache, held in memory.

    What is stored is read as it is; all that is made of tokens is made in one pass over them.

    Args:
        rows: of the cache, in any order
        names: which features of which layer
    """

    def __init__(self, cache: "TokenCache", rows: NDArray[np.int64], names: Iterable[Name]) -> None:
        self.rows = np.unique(rows)
        specs = {name: FEATURES[name[0]] for name in names}
        self._vectors = {
            (spec.vector, layer): self._stored(cache, spec.vector, layer)
            for (_, layer), spec in specs.items()
            if spec.vector
        }
        pooled = {name: spec for name, spec in specs.items() if spec.pool}
        self._specs, self._pooled = specs, self._one_pass(cache, pooled) if pooled else {}

    def of(self, name: Name, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, width) float32 of these rows."""
        spec = self._specs[name]
        parts = [self._vectors[spec.vector, name[1]]] if spec.vector else []
        parts += [self._pooled[name]] if spec.pool else []
        place = torch.from_numpy(np.searchsorted(self.rows, rows))
        return torch.cat([part[place] for part in parts], dim=1)

    def _stored(self, cache: "TokenCache", vector: str, layer: int) -> Tensor:
        found = cache.cls(self.rows, layer) if vector == "cls" else cache.mean(self.rows, layer)
        assert found is not None  # who asks for cls has asked whether there is one
        return found

    def _one_pass(self, cache: "TokenCache", specs: dict[Name, FeatureSpec]) -> dict[Name, Tensor]:
        out = {}
        for name, spec in specs.items():
            width = spec.width(cache.dim, cache.grid) - (cache.dim if spec.vector else 0)
            out[name] = torch.empty(len(self.rows), width)
        size = max(1, BLOCK // (4 * cache.num_tokens * cache.dim))
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            valid = cache.mask(rows)
            for layer in dict.fromkeys(layer for _, layer in specs):
                tokens = cache.tokens(rows, layer).float()
                for name, spec in specs.items():
                    if name[1] == layer and spec.pool:
                        out[name][start : start + len(rows)] = spec.pool(tokens, valid, cache.grid)
        return out


def default_features(has_cls: bool) -> str:
    """What the head ``linear`` reads: cls, or the mean where there is none."""
    return "cls" if has_cls else "mean"
