"""A head under test: how it is built, and the made-up clips that it meets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from featcache.heads.base import Head, HeadSpec, Inputs
from featcache.heads.options import options_of
from featcache.heads.pooled import Norm
from featcache.heads.registry import build_head
from featcache.heads.training.rng import seeded

CLASSES, LAYERS, GRID = 5, 3, (2, 6)
LIMIT = 1e-5  # what rounding may do, of the largest logit where that is above one


@dataclass(frozen=True)
class Case:
    """A head with the options that it is checked with."""

    spec: HeadSpec
    dim: int
    options: Mapping[str, Any]

    num_tokens = GRID[0] * GRID[1]
    valid = (12, 8, 6, 2)  # tokens of each clip that are audio: whole columns

    def build(self, *, seed: int = 0, **more: Any) -> Head:
        """A head with the weights of a seed."""
        with seeded(seed):
            return build_head(
                self.spec, self.dim, CLASSES, grid=GRID, num_layers=LAYERS, **{**self.options, **more}
            )

    def inputs(self, seed: int = 1) -> Inputs:
        """Clips of several lengths, as the engine gives them to a head that reads this."""
        draw = torch.Generator().manual_seed(seed)
        reads, B = self.spec.reads, len(self.valid)
        layers = (LAYERS,) if reads == "layers" else ()
        tokens = torch.randn(B, *layers, self.num_tokens, self.dim, generator=draw)
        cls = torch.randn(B, *layers, self.dim, generator=draw)
        valid = torch.arange(self.num_tokens) < torch.tensor(self.valid).unsqueeze(1)
        if reads in ("cls", "mean"):
            return None, cls, None
        return tokens, None if reads == "tokens" else cls, valid

    def variants(self) -> Iterator[dict[str, Any]]:
        """The options to vary: each norm, where the head has this option; else nothing."""
        norm = options_of(self.spec).get("norm")
        if norm is None or norm.annotation is not Norm or "norm" in self.options:
            yield {}
            return
        for each in get_args(Norm):
            yield {"norm": each}

    def words(self, own: Mapping[str, Any]) -> str:
        """A variant as the start of a sentence."""
        return "".join(f"with {name}={value!r}, " for name, value in own.items())


def answer(head: Head, inputs: Inputs) -> Tensor:
    """Logits (B, C) in evaluation."""
    with torch.no_grad():
        logits: Tensor = head.eval()(*inputs)
    return logits


def clips(inputs: Inputs, rows: Sequence[int]) -> Inputs:
    """Some of the clips alone."""
    tokens, cls, valid = (None if part is None else part[list(rows)] for part in inputs)
    return tokens, cls, valid


def gap(wanted: Tensor, found: Tensor) -> float:
    """Largest difference, of the largest value where that is above one; infinite between unlike shapes."""
    if wanted.shape != found.shape:
        return float("inf")
    apart = (wanted - found).abs().nan_to_num(nan=torch.inf).amax()
    return (apart / wanted.abs().amax().clamp_min(1.0)).item()
