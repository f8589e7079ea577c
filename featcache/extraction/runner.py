"""The frozen encoder at work: waveforms in, token maps on the host out, batch after batch."""

import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from featcache.devices import out_of_memory
from featcache.encoders.base import Encoded, Encoder, whole_columns
from featcache.errors import FeatcacheError, InputError
from featcache.extraction.interrupts import held_back
from featcache.spans import Spans

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")
_log = logging.getLogger(__name__)
COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_WAITING = 4  # batches of features that wait for clips of their own shape


class ClipTokens(NamedTuple):
    """One clip's share of a batch, on the host in float32."""

    tokens: dict[int, Tensor]  # layer -> (n, D)
    cls: dict[int, Tensor] | None  # layer -> (D,)
    valid: int


class Runner:
    """An encoder on its device, in its compute dtype. The frontend always runs in float32."""

    def __init__(self, encoder: Encoder, *, device: torch.device, dtype: str, layers: Sequence[int]) -> None:
        if dtype not in COMPUTE_DTYPES:
            raise InputError(f"no compute dtype {dtype!r}; known: {', '.join(COMPUTE_DTYPES)}")
        if isinstance(encoder, nn.Module):
            encoder.to(device).eval().requires_grad_(False)
        self.encoder, self.device, self.dtype, self.layers = (
            encoder,
            device,
            COMPUTE_DTYPES[dtype],
            tuple(layers),
        )

    @torch.inference_mode()
    def features(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) on the host to features (frames_i, mels) there; one shape for as many tokens."""
        features = self.encoder.frontend(
            [waveform.to(self.device, non_blocking=True) for waveform in waveforms]
        )
        return [whole_columns(self.encoder, own) for own in features]

    @torch.inference_mode()
    def encode(self, features: Tensor) -> Encoded:
        """Features (B, frames, mels) to tokens on the device."""
        with contextlib.ExitStack() as numerics:
            if self.dtype != torch.float32:
                numerics.enter_context(torch.autocast(self.device.type, dtype=self.dtype))
            elif self.device.type == "cuda":
                # By default cuDNN rounds the inputs of fp32 convolutions (patch embeddings) to TF32.
                numerics.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            return self.encoder(features, self.layers)

    def tokens_of(self, waveforms: Sequence[Tensor]) -> list[ClipTokens]:
        """Encode a few waveforms, each batch of one shape at a time; results in order."""
        results: dict[int, ClipTokens] = {}
        batcher: Batcher[int] = Batcher(self, len(waveforms), results.__setitem__)
        for index, waveform in enumerate(waveforms):
            batcher.push(index, waveform)
        batcher.flush()
        return [results[index] for index in range(len(waveforms))]


class Batcher(Generic[T]):
    """Gather clips into batches of one feature shape and hand each clip's tokens to ``sink``.

    Clips of unequal length never share a padded batch, so tokens do not depend on batch mates.
    They wait for mates of their own shape until a batch is full, or four batches of clips wait: then the
    shape of which most do goes, so that memory is bounded and the encoder works while clips are decoded.
    The order in which clips reach ``sink`` follows from the clips pushed since the last flush
    alone: a run that resumes at a flush repeats an unbroken run exactly.
    """

    def __init__(
        self,
        runner: Runner,
        batch_size: int,
        sink: Callable[[T, ClipTokens], object],
        spans: Spans | None = None,
    ) -> None:
        self._spans = spans or Spans()
        self._runner, self._batch_size, self._sink = runner, batch_size, sink
        self._waiting: list[tuple[T, Tensor]] = []
        self._groups: dict[torch.Size, list[tuple[T, int, Tensor]]] = defaultdict(list)
        self._fitting = batch_size  # clips of a batch that the device has had memory for
        self._flying: tuple[list[tuple[T, int]], Encoded, torch.cuda.Event | None] | None = None

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

        def encode(part: list[tuple[T, int, Tensor]]) -> Encoded:
            return self._runner.encode(torch.stack([feature for _, _, feature in part]))

        for part, encoded in self._by_parts("encode", encode, group):
            self._fly(part, encoded)

    def _fly(self, group: list[tuple[T, int, Tensor]], encoded: Encoded) -> None:
        event = None
        if self._runner.device.type == "cuda":
            encoded = _to_host(encoded)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self._land()
        self._flying = ([(item, valid) for item, valid, _ in group], encoded, event)

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
        (items, encoded, event), self._flying = self._flying, None
        if event is not None:
            with self._spans.span("encode"):
                event.synchronize()
        tokens = {layer: value.cpu().float() for layer, value in encoded.tokens.items()}
        cls = encoded.cls and {layer: value.cpu().float() for layer, value in encoded.cls.items()}
        with held_back():  # a run that is stopped has whole batches, so the next one makes the same ones
            for row, (item, valid) in enumerate(items):
                own = {layer: value[row] for layer, value in tokens.items()}
                self._sink(
                    item, ClipTokens(own, cls and {layer: value[row] for layer, value in cls.items()}, valid)
                )


def _to_host(encoded: Encoded) -> Encoded:
    """Copies to pinned memory that the device makes while it goes on with the next batch."""

    def copy(value: Tensor) -> Tensor:
        return torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)

    tokens = {layer: copy(value) for layer, value in encoded.tokens.items()}
    return Encoded(tokens, encoded.cls and {layer: copy(value) for layer, value in encoded.cls.items()})
