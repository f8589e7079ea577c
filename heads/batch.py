"""What was read of a batch of clips, and the part of it that each head wants."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.cache.dtypes import dequantise

Need = tuple[Literal["tokens", "cls", "mean"], int]  # what of a clip is read, of which layer


def needs_of(reads: str, layers: Sequence[int], layer: int, has_cls: bool) -> set[Need]:
    """What a head that ``reads`` this needs; the mean stands in where an encoder has no cls.

    >>> sorted(needs_of("tokens+cls", [6, 12], 12, has_cls=False))
    [('mean', 12), ('tokens', 12)]
    """
    vector: Literal["cls", "mean"] = "cls" if has_cls and reads != "mean" else "mean"
    if reads == "layers":
        return {need for own in layers for need in needs_of("tokens+cls", layers, own, has_cls)}
    wants: set[Need] = set()
    if reads.startswith("tokens"):
        wants.add(("tokens", layer))
    if reads != "tokens":
        wants.add((vector, layer))
    return wants


@dataclass
class Batch:
    """What was read of B clips: one tensor per need, as stored, and which tokens are audio.

    With a reused buffer a batch is good until the next one is asked for.
    """

    parts: dict[Need, Tensor]  # tokens (B, N, D) as stored; cls and mean (B, D) float32
    scales: dict[int, Tensor]  # layer -> (B, N) float32, of quantised tokens
    valid: Tensor | None  # (B, N) bool; None where every token is audio
    size: int
    dtype: str  # of the store

    def __len__(self) -> int:
        return self.size

    def inputs(
        self, reads: str, layers: Sequence[int], layer: int, has_cls: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The (tokens, cls, valid) of a head that ``reads`` this."""
        if reads == "layers":
            each = [self.inputs("tokens+cls", layers, own, has_cls) for own in layers]
            tokens = torch.stack([tokens for tokens, _, _ in each if tokens is not None], dim=1)
            cls = torch.stack([cls for _, cls, _ in each if cls is not None], dim=1)
            return tokens, cls, self.valid  # (B, layers, N, D), (B, layers, D), (B, N)
        needs = dict(needs_of(reads, layers, layer, has_cls))
        vector = next((self.parts[name, layer] for name in ("cls", "mean") if name in needs), None)
        return (self.tokens(layer), vector, self.valid) if "tokens" in needs else (None, vector, None)

    def tokens(self, layer: int) -> Tensor:
        """Tokens (B, N, D) as floats; converted once, however many heads read them."""
        if layer not in self._floats:
            stored = self.parts["tokens", layer]
            floats = dequantise(stored, self.scales[layer], self.dtype) if layer in self.scales else stored
            # CPU arithmetic on half floats is slow: one conversion here instead of one per head.
            self._floats[layer] = floats.float() if floats.device.type == "cpu" else floats
        return self._floats[layer]

    @cached_property
    def _floats(self) -> dict[int, Tensor]:
        return {}

    def select(self, places: NDArray[np.int64]) -> "Batch":
        """The clips at these places, in this order."""
        return self._map(lambda tensor: tensor[torch.from_numpy(places).to(tensor.device)], len(places))

    @staticmethod
    def join(batches: Sequence["Batch"]) -> "Batch":
        """Several batches one after another."""
        if len(batches) == 1:
            return batches[0]
        first = batches[0]
        parts = {need: torch.cat([batch.parts[need] for batch in batches]) for need in first.parts}
        scales = {layer: torch.cat([batch.scales[layer] for batch in batches]) for layer in first.scales}
        masks = [batch.valid for batch in batches]
        valid = None
        if (known := next((mask for mask in masks if mask is not None), None)) is not None:
            shapes = [(len(batch), known.shape[1]) for batch in batches]
            valid = torch.cat(
                [
                    known.new_ones(shape) if mask is None else mask
                    for mask, shape in zip(masks, shapes, strict=True)
                ]
            )
        return Batch(parts, scales, valid, sum(map(len, batches)), first.dtype)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; the copy does not wait where the memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True), self.size)

    def record_stream(self, stream: "torch.cuda.Stream") -> None:
        """Keep the memory until this stream has done with it."""
        for tensor in (*self.parts.values(), *self.scales.values(), self.valid):
            if tensor is not None:
                tensor.record_stream(stream)

    def _map(self, function: Callable[[Tensor], Tensor], size: int) -> "Batch":
        return Batch(
            {need: function(tensor) for need, tensor in self.parts.items()},
            {layer: function(tensor) for layer, tensor in self.scales.items()},
            None if self.valid is None else function(self.valid),
            size,
            self.dtype,
        )
