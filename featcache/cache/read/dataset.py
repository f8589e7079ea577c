"""A cache as a torch dataset."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from featcache.cache.format.quantize import dequantize
from featcache.cache.read.reader import TokenCache

Sample = tuple[Tensor, Tensor, Tensor]


class TokenDataset(Dataset[Sample]):
    """Clips by number: (tokens (N, D), vector (D,), valid ()); the vector is the cls or the mean.

    A list of numbers gives a whole batch from one gather. With a ``BatchSampler`` as the
    ``sampler`` of a ``DataLoader`` (and ``batch_size=None``), no clip is copied twice on its way:
    a worker process gathers straight into memory that it shares with the trainer.

    Quantized tokens come as float32.
    """

    def __init__(self, cache: TokenCache, layer: int | None = None) -> None:
        self.cache, self.layer = cache, layer

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, rows: int | Sequence[int]) -> Sample:
        if isinstance(rows, int):
            tokens, vector, valid = self[[rows]]
            return tokens[0], vector[0], valid[0]
        stored = self.cache.gather(rows, self.layer, out=self._shared_buffer(len(rows)))
        tokens = dequantize(stored, self.cache.scales(rows, self.layer), self.cache.dtype)
        index = torch.as_tensor(rows)
        return tokens, self._vectors[index], self._valid[index]

    @cached_property
    def _vectors(self) -> Tensor:
        vectors = self.cache.cls(self.layer)
        return torch.from_numpy(self.cache.mean(self.layer) if vectors is None else vectors)

    @cached_property
    def _valid(self) -> Tensor:
        return torch.from_numpy(self.cache.valid)

    def _shared_buffer(self, num_clips: int) -> Tensor | None:
        """Shared memory in a worker process, whose results would be copied there anyway."""
        if get_worker_info() is None:
            return None
        spec = self.cache.tokens_spec(self.layer)
        shape, dtype = (num_clips, *spec.row_shape), self.cache.layout.store.torch
        # What default_collate does; share_memory_() would copy the empty tensor first.
        storage = torch.UntypedStorage._new_shared(num_clips * spec.row_bytes)  # type: ignore[no-untyped-call]
        return torch.empty(0, dtype=dtype).set_(storage).view(shape)
