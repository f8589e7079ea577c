"""Where training reads tokens from: a cache on disk, or the part of it that fits in memory."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.cache.format.dtypes import store_dtype
from featcache.devices import free_memory
from featcache.heads.data.batch import Batch, Need
from featcache.scratch import Scratch

if TYPE_CHECKING:
    from featcache.cache import TokenCache

DeviceCache = Literal["auto", "on", "off"]
SMALL = 256 << 20  # [bytes] below this, handing batches between threads costs more than it saves


def clip_bytes(cache: "TokenCache") -> int:
    """[bytes] of one clip's stored tokens of one layer."""
    return cache.num_tokens * cache.dim * store_dtype(cache.dtype).bits // 8


class Source:
    """Reads what heads need of the clips of a cache.

    Clip vectors (``cls``, ``mean``) are small and lie in memory at once. Token maps are gathered
    batch by batch, or, with ``device_cache``, loaded once: "auto" does so on an accelerator where
    they fit into half of its free memory, and on the CPU where they are small (the page cache
    already holds larger ones).

    Args:
        rows: the rows that will be read, of all splits
    """

    def __init__(
        self,
        cache: "TokenCache",
        needs: Iterable[Need],
        rows: NDArray[np.int64],
        device: torch.device,
        device_cache: DeviceCache = "auto",
    ) -> None:
        self.cache, self.device = cache, device
        self.needs = sorted(needs)
        self.token_layers = [layer for name, layer in self.needs if name == "tokens"]
        self.num_rows = len(cache)
        self.keys = np.asarray(cache.keys)
        self.scratch = Scratch()
        scales = {layer: self.cache.channel_scale(layer) for layer in self.token_layers}
        self._channels = {layer: scale for layer, scale in scales.items() if scale is not None}
        self._vectors = {need: self._vector(*need) for need in self.needs if need[0] != "tokens"}
        self._slots: dict[tuple[int, int], Tensor] = {}
        # A stream of its own lets the next batch travel while the device computes on this one.
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._place: NDArray[np.int64] | None = None
        self._loaded: Batch | None = None
        if self.token_layers and self._wants_loading(device_cache, len(np.unique(rows))):
            self._load(np.unique(rows))

    @property
    def resident(self) -> bool:
        """Nothing is read from disk any more."""
        return self._loaded is not None or not self.token_layers

    @property
    def bytes_per_clip(self) -> int:
        """[bytes] of tokens that one read of a clip moves."""
        return len(self.token_layers) * clip_bytes(self.cache)

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Ask the kernel for the tokens of these rows; returns at once."""
        for layer in self.token_layers:
            self.cache.prefetch(rows, layer)

    def read(self, rows: NDArray[np.int64]) -> Batch:
        """A batch on the device."""
        if self._loaded is not None and self._place is not None:
            return Batch.pick([self._loaded], self._place[rows], self.scratch)
        return self.to_device(self.stage(rows, slot=None))

    def stage(self, rows: NDArray[np.int64], slot: int | None) -> Batch:
        """A batch in host memory.

        Args:
            slot: reuse the buffer of this number; None takes fresh memory
        """
        parts: dict[Need, Tensor] = {}
        scales = {}
        index = torch.from_numpy(rows)
        for need in self.needs:
            name, layer = need
            if name != "tokens":
                parts[need] = self._vectors[need][index.to(self._vectors[need].device)]
                continue
            parts[need] = self.cache.gather(rows, layer, out=self._buffer(layer, slot, len(rows)))
            if (scale := self.cache.scales(rows, layer)) is not None:
                scales[layer] = scale
        audio = self.cache.mask(rows)
        return Batch(
            parts, scales, audio, not bool(audio.all()), self.cache.dtype, self.scratch, self._channels
        )

    def to_device(self, batch: Batch) -> Batch:
        """Move a staged batch to the device; its host memory may be reused when this returns."""
        if self.device.type == "cpu":
            return batch
        if self._copies is None:
            return batch.to(self.device)
        with torch.cuda.stream(self._copies):
            moved = batch.to(self.device)
        self._copies.synchronize()
        # The memory belongs to the copying stream; tell the allocator who computes with it.
        moved.record_stream(torch.cuda.default_stream(self.device))
        return moved

    def _vector(self, name: str, layer: int) -> Tensor:
        vectors = self.cache.mean(layer=layer) if name == "mean" else self.cache.cls(layer=layer)
        assert vectors is not None  # needs_of asks for no cls where there is none
        return vectors.to(self.device)

    def _buffer(self, layer: int, slot: int | None, size: int) -> Tensor | None:
        if slot is None:
            return None
        known = self._slots.get((layer, slot))
        if known is None or len(known) < size:
            store = store_dtype(self.cache.dtype)
            shape = (size, self.cache.num_tokens, store.packed(self.cache.dim))
            known = torch.empty(shape, dtype=store.torch, pin_memory=self.device.type == "cuda")
            self._slots[layer, slot] = known
        return known[:size]

    def _wants_loading(self, device_cache: DeviceCache, count: int) -> bool:
        if device_cache != "auto":
            return device_cache == "on"
        if self.device.type != "cuda":
            return count * self.bytes_per_clip <= SMALL
        return count * self.bytes_per_clip < free_memory(self.device) // 2

    def _load(self, rows: NDArray[np.int64], block: int = 1024) -> None:
        """Read the tokens of all rows to the device, in blocks so that the host never holds all."""
        self._place = np.full(self.num_rows, -1, dtype=np.int64)
        self._place[rows] = np.arange(len(rows))
        blocks = np.split(rows, range(block, len(rows), block))
        self._loaded = Batch.join([self.to_device(self.stage(own, slot=None)) for own in blocks])
