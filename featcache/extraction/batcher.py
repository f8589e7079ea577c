"""Clips gathered into batches, encoded, and handed on one by one."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from featcache.devices import out_of_memory
from featcache.encoders.base import Encoded
from featcache.errors import FeatcacheError
from featcache.extraction.interrupts import held_back
from featcache.extraction.runner import Runner
from featcache.extraction.transfer import OnHost
from featcache.spans import Spans

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")
_log = logging.getLogger(__name__)
MOST_WAITING = 4  # batches of features that wait for clips of their own shape


class ClipTokens(NamedTuple):
    """One clip's share of a batch, on the host."""

    tokens: dict[int, Tensor]  # layer -> (n, D)
    cls: dict[int, Tensor] | None  # layer -> (D,) float32
    valid: int
    mean: dict[int, Tensor] | None  # layer -> (D,) float32 of the valid tokens, where the device made it
    computed: dict[int, Tensor]  # layer -> (n, D) on the device, as the encoder computed them


class _Flying(NamedTuple, Generic[T]):
    """A batch on its way to the host."""

    items: list[tuple[T, int]]  # with the number of valid tokens
    encoded: Encoded
    arrival: Callable[[], OnHost]


class Batcher(Generic[T]):
    """Gather clips into batches of one feature shape and hand each clip's tokens to ``sink``.

    Clips of unequal length never share a padded batch, so tokens do not depend on batch mates.
    They wait for mates of their own shape until a batch is full, or four batches of clips wait: then the
    shape of which most do goes, so that memory is bounded and the encoder works while clips are decoded.
    The order in which clips reach ``sink`` follows from the clips pushed since the last flush
    alone: a run that resumes at a flush repeats an unbroken run exactly.

    Args:
        dtype: of the tokens; as the encoder computes them unless given
    """

    def __init__(
        self,
        runner: Runner,
        batch_size: int,
        sink: Callable[[T, ClipTokens], object],
        *,
        dtype: torch.dtype | None = torch.float32,
        spans: Spans | None = None,
    ) -> None:
        self._spans = spans or Spans()
        self._runner, self._batch_size, self._sink = runner, batch_size, sink
        self._dtype = dtype
        self._waiting: list[tuple[T, Tensor]] = []
        self._groups: dict[torch.Size, list[tuple[T, int, Tensor]]] = defaultdict(list)
        self._fitting = batch_size  # clips of a batch that the device has had memory for
        self._flying: _Flying[T] | None = None

    def push(self, item: T, waveform: Tensor) -> None:
        """Take one clip (L,); encodes when a batch is full."""
        self._waiting.append((item, waveform))
        if len(self._waiting) >= self._batch_size:
            self._frontend()

    def flush(self) -> None:
        """Encode what is left, in batches that are not full."""
        self._frontend()
        for shape in list(self._groups):
            self._launch(self._groups.pop(shape))
        self._land()

    def _frontend(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        waveforms = [waveform for _, waveform in waiting]
        parts = self._by_parts("frontend", self._runner.features, waveforms)
        features = [feature for _, own in parts for feature in own]
        for (item, waveform), feature in zip(waiting, features, strict=True):
            group = self._groups[feature.shape]
            group.append((item, self._runner.encoder.valid_tokens(len(waveform)), feature))
            if len(group) == self._batch_size:
                self._launch(self._groups.pop(feature.shape))
            elif sum(map(len, self._groups.values())) > MOST_WAITING * self._batch_size:
                self._launch(self._groups.pop(max(self._groups, key=lambda shape: len(self._groups[shape]))))

    def _launch(self, group: list[tuple[T, int, Tensor]]) -> None:
        """Start one batch, in parts where it must be, and finish the one before it."""

        def encode(part: list[tuple[T, int, Tensor]]) -> tuple[Encoded, Callable[[], OnHost]]:
            encoded = self._runner.encode(torch.stack([feature for _, _, feature in part]))
            valid = [valid for _, valid, _ in part]
            return encoded, self._runner.to_host(encoded, valid, self._dtype)

        for part, (encoded, arrival) in self._by_parts("encode", encode, group):
            self._land()
            self._flying = _Flying([(item, valid) for item, valid, _ in part], encoded, arrival)
            if not self._runner.transfer.overlaps:
                self._land()

    def _by_parts(
        self, stage: str, work: Callable[[list[S]], R], items: list[S]
    ) -> Iterator[tuple[list[S], R]]:
        """Do the work on all items at once, or on as many as the device has memory for.

        Raises:
            FeatcacheError: it has none for a single one.
        """
        start = 0
        while start < len(items):
            part = items[start : start + self._fitting]
            with self._spans.span(stage):
                result = self._tried(work, part)
            if result is not None:
                start += len(part)
                yield part, result
                continue
            self._land()  # its tokens take memory, too
            if self._runner.device.type == "cuda":
                torch.cuda.empty_cache()
            self._fitting = len(part) // 2
            self._runner.compiled = None  # it would fill the halves up
            _log.warning("out of memory on %s: batches of %s now", self._runner.device, self._fitting)

    def _tried(self, work: Callable[[list[S]], R], part: list[S]) -> R | None:
        """None where memory ran out; the error is gone by then, and with it the tensors in its frames."""
        try:
            return work(part)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(part) == 1:
                raise FeatcacheError(
                    f"{self._runner.device} has no memory for a single clip; take shorter clips or windows, "
                    "a smaller compute dtype, or another device",
                    options=("clip_seconds", "window_seconds", "dtype", "device"),
                ) from error
            return None

    def _land(self) -> None:
        if self._flying is None:
            return
        (items, encoded, arrival), self._flying = self._flying, None
        with self._spans.span("encode"):
            host = arrival()
        parts = zip(
            items, _rows(host.tokens, items), _rows(host.cls, items), _rows(host.mean, items),
            _rows(encoded.tokens, items), strict=True,
        )  # fmt: skip
        # A run that is stopped has whole batches, so the next one makes the same ones.
        with held_back(), self._spans.span("store"):  # waiting for the disk is part of it
            for (item, valid), tokens, cls, mean, computed in parts:
                self._sink(item, ClipTokens(tokens or {}, cls, valid, mean, computed or {}))


def _rows(batch: dict[int, Tensor] | None, items: Sequence[object]) -> Iterable[dict[int, Tensor] | None]:
    """What each item of a batch has of it."""
    if batch is None:
        return [None] * len(items)
    return (
        dict(zip(batch, own, strict=True)) for own in zip(*(map(Tensor.unbind, batch.values())), strict=True)
    )


def tokens_of(runner: Runner, waveforms: Sequence[Tensor]) -> list[ClipTokens]:
    """Encode a few waveforms, each batch of one shape at a time; results in order, in float32."""
    results: dict[int, ClipTokens] = {}
    batcher: Batcher[int] = Batcher(runner, len(waveforms), results.__setitem__)
    for index, waveform in enumerate(waveforms):
        batcher.push(index, waveform)
    batcher.flush()
    return [results[index] for index in range(len(waveforms))]
