"""Between the host and the encoder's device: a copy each way a batch, and what is computed on the way."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from featcache.cache.format.dtypes import StoreDtype
from featcache.encoders.base import Encoded

Layers = dict[int, Tensor]


class OnHost(NamedTuple):
    """One batch on the host."""

    tokens: Layers  # layer -> (B, n, D)
    cls: Layers | None  # layer -> (B, D) float32
    mean: Layers | None  # layer -> (B, D) float32, of the valid tokens; None where that is left to the writer


class Transfer:
    """To a device that is the host, or as slow to reach: tokens come back as they were computed.

    A cache's writer casts, sums and quantises a clip in one pass while it is in the processor's own memory;
    to do it here for a whole batch would be a pass more.
    """

    overlaps = False  # whether the device goes on while a batch comes back

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def dtype_for(self, store: StoreDtype) -> torch.dtype | None:
        """What tokens for such a store are to come back as; None as they were computed."""
        return None

    def up(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to the device."""
        return [waveform.to(self.device) for waveform in waveforms]

    def down(self, encoded: Encoded, valid: Sequence[int], dtype: torch.dtype | None) -> Callable[[], OnHost]:
        """Begin to bring a batch to the host; what is returned waits for it.

        Args:
            valid: of each clip, how many of its tokens stand for audio
            dtype: of the tokens on the host; as they were computed unless given
        """
        tokens = {layer: own.cpu().to(dtype or own.dtype) for layer, own in encoded.tokens.items()}
        cls = encoded.cls and {layer: own.cpu().float() for layer, own in encoded.cls.items()}
        return lambda: OnHost(tokens, cls, None)


class CudaTransfer(Transfer):
    """Copies through pinned memory in streams of their own; means and the cast are the GPU's.

    PyTorch keeps pinned memory that was freed for the batches after it.
    """

    overlaps = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._up: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._down: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def dtype_for(self, store: StoreDtype) -> torch.dtype | None:
        """The store's own; integers are made by its writer."""
        return None if store.scaled else store.torch

    def up(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        """Waveforms (L_i,) to the device in one transfer."""
        lengths = [len(waveform) for waveform in waveforms]
        host = torch.cat(list(waveforms), out=pinned([sum(lengths)], waveforms[0].dtype))
        work = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._up):
            flat = host.to(self.device, non_blocking=True)
        work.wait_stream(self._up)
        flat.record_stream(work)  # its memory is not given away before the frontend has read it
        return list(torch.split(flat, lengths))

    def down(self, encoded: Encoded, valid: Sequence[int], dtype: torch.dtype | None) -> Callable[[], OnHost]:
        """As above, while the device goes on with the next batch."""
        # From pinned memory: another copy would wait until the encoder is done.
        counts = pinned([len(valid)], torch.int64).copy_(torch.tensor(valid))
        counts = counts.to(self.device, non_blocking=True)
        tokens = {layer: own.to(dtype or own.dtype).contiguous() for layer, own in encoded.tokens.items()}
        cls = encoded.cls and {layer: own.float() for layer, own in encoded.cls.items()}
        mean = {layer: mean_of_valid(own, counts) for layer, own in encoded.tokens.items()}
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._down):
            ready = OnHost(self._copied(tokens), cls and self._copied(cls), self._copied(mean))
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record(self._down)

        def wait() -> OnHost:
            arrived.synchronize()
            return ready

        return wait

    def _copied(self, values: Layers) -> Layers:
        copies = {}
        for layer, value in values.items():
            value.record_stream(self._down)
            copies[layer] = pinned(value.shape, value.dtype).copy_(value, non_blocking=True)
        return copies


def transfer_of(device: torch.device) -> Transfer:
    """The way to a device and back."""
    return CudaTransfer(device) if device.type == "cuda" else Transfer(device)


def pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory of the host that the GPU copies from and to by itself."""
    return torch.empty(*shape, dtype=dtype, pin_memory=True)


def mean_of_valid(tokens: Tensor, counts: Tensor) -> Tensor:
    """The mean of each clip's first ``counts`` tokens, of the same bits whatever else is in the batch.

    A GPU's own sum may take another order where there are more clips. Here halves are added until one row
    is left: elementwise additions alone.

    Shape:
        - tokens: (B, n, D), n at least 1
        - counts: (B,)
        - output: (B, D) float32; of no tokens it is zero

    >>> mean_of_valid(torch.arange(7.0)[None, :, None], torch.tensor([5])).item()
    2.0
    """
    counted = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]  # (B, n)
    rows = torch.where(counted[..., None], tokens, tokens.new_zeros(())).float()
    while (n := rows.shape[1]) > 1:
        half = rows[:, : n // 2] + rows[:, n // 2 : n // 2 * 2]
        rows = torch.cat([half, rows[:, -1:]], dim=1) if n % 2 else half
    return rows[:, 0] / counts.clamp(min=1)[:, None]
