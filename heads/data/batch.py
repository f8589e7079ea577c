"""What was read of a batch of clips, and the part of it that each head wants."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.cache.format.quantize import dequantize
from featcache.scratch import Scratch

Need = tuple[Literal["tokens", "cls", "mean"], int]  # what of a clip is read, of which layer


def needs_of(reads: str, layers: Sequence[int], layer: int, has_cls: bool) -> set[Need]:
    """What a head that ``reads`` this needs; the mean stands in where an encoder has no cls.

    >>> sorted(needs_of("tokens+cls", [6, 12], 12, has_cls=False))
    [('mean', 12), ('tokens', 12)]
    """
    vector: Literal["cls", "mean"] = "cls" if has_cls and reads != "mean" else "mean"
    if reads == "layers":
        own: list[Literal["tokens", "cls"]] = ["tokens", "cls"] if has_cls else ["tokens"]
        return {(name, each) for name in own for each in layers}
    wants: set[Need] = set()
    if reads.startswith("tokens"):
        wants.add(("tokens", layer))
    if reads != "tokens":
        wants.add((vector, layer))
    return wants


@dataclass
class Batch:
    """What was read of B clips: one tensor per need, as stored, and which tokens are audio.

    With a scratch or a reused buffer a batch is good until the next one is asked for.
    """

    parts: dict[Need, Tensor]  # tokens (B, N, D) as stored; cls and mean (B, D) float32
    scales: dict[int, Tensor]  # layer -> (B, N) float32, of quantized tokens
    audio: Tensor  # (B, N) bool: which tokens are audio
    padded: bool  # some are not
    dtype: str  # of the store
    scratch: Scratch | None = None
    channels: dict[int, Tensor] = field(default_factory=dict)  # layer -> (D,) scales, where not all are one
    _floats: dict[int, Tensor] = field(default_factory=dict)  # converted tokens, by layer
    _stacked: tuple[Tensor, Tensor | None, Tensor | None] | None = None  # of all layers

    def __len__(self) -> int:
        return len(self.audio)

    @property
    def valid(self) -> Tensor | None:
        """(B, N) bool, or None where every token is audio: then nothing has to be masked."""
        return self.audio if self.padded else None

    def inputs(
        self, reads: str, layers: Sequence[int], layer: int, has_cls: bool, *, stored: bool = False
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The (tokens, cls, valid) of a head that ``reads`` this.

        Args:
            stored: give tokens as they are stored where that is their direction (not packed int4, and no
                channel has a scale of its own), for heads that do not see the length of a token
        """
        if reads == "layers":
            if self._stacked is None:
                self._stacked = self._all_layers(layers, has_cls)
            return self._stacked
        needs = dict(needs_of(reads, layers, layer, has_cls))
        vector = next((self.parts[name, layer] for name in ("cls", "mean") if name in needs), None)
        if "tokens" not in needs:
            return None, vector, None
        as_stored = stored and self.dtype != "int4" and layer not in self.channels
        tokens = self.parts["tokens", layer] if as_stored else self.tokens(layer)
        return tokens, vector, self.valid

    def _all_layers(
        self, layers: Sequence[int], has_cls: bool
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        floats = [self.tokens(layer) for layer in layers]
        # (B, layers, N, D); a single layer is not copied
        tokens = floats[0].unsqueeze(1) if len(floats) == 1 else torch.stack(floats, dim=1)
        if not has_cls:  # a head that wants a mean makes it of what it makes of the tokens
            return tokens, None, self.valid
        cls = torch.stack([self.parts["cls", layer] for layer in layers], dim=1)  # (B, layers, D)
        return tokens, cls, self.valid

    def tokens(self, layer: int) -> Tensor:
        """Tokens (B, N, D) as floats; converted once, however many heads read them."""
        if layer not in self._floats:
            stored = self.parts["tokens", layer]
            floats = dequantize(stored, self.scales.get(layer), self.dtype, self.channels.get(layer))
            # CPU arithmetic on half floats is slow: one conversion here instead of one per head.
            self._floats[layer] = self._widened(floats, layer) if floats.device.type == "cpu" else floats
        return self._floats[layer]

    def _widened(self, floats: Tensor, layer: int) -> Tensor:
        if floats.dtype == torch.float32 or self.scratch is None:
            return floats.float()
        return self.scratch.take(("floats", layer), floats.shape).copy_(floats)

    def select(self, places: NDArray[np.int64]) -> "Batch":
        """The clips at these places, in this order, in memory of their own."""
        return Batch.pick([self], places, None)

    @staticmethod
    def pick(held: Sequence["Batch"], places: NDArray[np.int64], scratch: Scratch | None) -> "Batch":
        """Clips by their place in several batches laid end to end."""
        ends = np.cumsum([len(batch) for batch in held])
        owner = np.searchsorted(ends, places, side="right")
        cuts = [
            (
                torch.from_numpy(np.flatnonzero(owner == number)),
                torch.from_numpy(places[owner == number] - start),
            )
            for number, start in enumerate(ends - [len(batch) for batch in held])
        ]

        def collect(name: object, tensors: Sequence[Tensor]) -> Tensor:
            first, shape = tensors[0], (len(places), *tensors[0].shape[1:])
            taken = (scratch or Scratch()).take(("picked", name), shape, first.dtype, first.device)
            for tensor, (to, out_of) in zip(tensors, cuts, strict=True):
                to, out_of = to.to(tensor.device), out_of.to(tensor.device)
                if len(to) == len(places):
                    return torch.index_select(tensor, 0, out_of, out=taken)
                taken.index_copy_(0, to, tensor.index_select(0, out_of))
            return taken

        first = held[0]
        return Batch(
            {need: collect(need, [batch.parts[need] for batch in held]) for need in first.parts},
            {layer: collect(layer, [batch.scales[layer] for batch in held]) for layer in first.scales},
            collect("audio", [batch.audio for batch in held]),
            any(batch.padded for batch in held),
            first.dtype,
            scratch,
            first.channels,
        )

    @staticmethod
    def join(batches: Sequence["Batch"]) -> "Batch":
        """Several batches one after another."""
        return Batch.pick(batches, np.arange(sum(map(len, batches))), None)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; the copy does not wait where the memory is pinned."""
        return Batch(
            {need: tensor.to(device, non_blocking=True) for need, tensor in self.parts.items()},
            {layer: tensor.to(device, non_blocking=True) for layer, tensor in self.scales.items()},
            self.audio.to(device, non_blocking=True),
            self.padded,
            self.dtype,
            channels={layer: scale.to(device) for layer, scale in self.channels.items()},
        )

    def record_stream(self, stream: "torch.cuda.Stream") -> None:
        """Keep the memory until this stream has done with it."""
        for tensor in (*self.parts.values(), *self.scales.values(), self.audio):
            tensor.record_stream(stream)
