"""One clip as a caller gives it to a writer, checked, with its vectors."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from featcache.cache.format.layout import KEY_BYTES, CacheLayout
from featcache.cache.write.clip_buffer import small_blocks
from featcache.errors import InputError

_SUMMED = 512  # rows of a float32 sum: a sum of block sums rounds less off than one long sum


class GivenClip(NamedTuple):
    """What a buffer takes."""

    id: str
    key: bytes
    tokens: Mapping[int, Tensor]
    vectors: Mapping[str, Mapping[int, Tensor]]
    valid: int

    def copy(self) -> "GivenClip":
        """The same in memory of its own."""
        vectors = {kind: _cloned(by_layer) for kind, by_layer in self.vectors.items()}
        return self._replace(tokens=_cloned(self.tokens), vectors=vectors)


def given_clip(
    layout: CacheLayout,
    clip_id: str,
    key: bytes,
    tokens: Mapping[int, Tensor],
    cls: Mapping[int, Tensor] | None,
    valid: int,
    mean: Mapping[int, Tensor] | None,
) -> GivenClip:
    """The clip, whose tokens are the caller's.

    Args:
        mean: layer -> (D,), where the caller knows it better than from ``tokens``

    Raises:
        InputError: a shape does not fit the layout.
    """
    _check(layout, clip_id, key, tokens, cls, valid)
    vectors: dict[str, Mapping[int, Tensor]] = {
        "mean": mean or {layer: mean_token(tokens[layer][:valid]) for layer in layout.layers}
    }
    if cls is not None:
        vectors["cls"] = cls
    return GivenClip(clip_id, key, tokens, vectors, valid)


def _check(
    layout: CacheLayout,
    clip_id: str,
    key: bytes,
    tokens: Mapping[int, Tensor],
    cls: Mapping[int, Tensor] | None,
    valid: int,
) -> None:
    if len(key) != KEY_BYTES:
        raise InputError(f"clip {clip_id!r}: a key has {KEY_BYTES} bytes, not {len(key)}")
    if (cls is not None) != layout.has_cls:
        raise InputError(f"clip {clip_id!r}: the cache was created with has_cls={layout.has_cls}")
    for layer in layout.layers:
        shape = tuple(tokens[layer].shape) if layer in tokens else ()
        if len(shape) != 2 or shape[1] != layout.dim or shape[0] > layout.num_tokens:
            raise InputError(
                f"clip {clip_id!r}: layer {layer} needs tokens (n <= {layout.num_tokens}, {layout.dim}), "
                f"found {shape or 'none'}"
            )
        if not 0 <= valid <= len(tokens[layer]):
            raise InputError(f"clip {clip_id!r}: {valid} valid tokens of {len(tokens[layer])}")


def _cloned(by_layer: Mapping[int, Tensor]) -> dict[int, Tensor]:
    return {layer: values.detach().clone() for layer, values in by_layer.items()}


def mean_token(tokens: Tensor) -> Tensor:
    """(n, D) to (D,) float32, in the thread of the caller; of no tokens it is zero."""
    if tokens.dtype == torch.float32:
        rows = tokens.detach().numpy()
        with np.errstate(over="ignore", invalid="ignore"):  # as torch: beyond the range it is infinite
            sums = [
                rows[start : start + _SUMMED].sum(axis=0) for start in range(0, max(len(rows), 1), _SUMMED)
            ]
            return torch.from_numpy(np.sum(sums, axis=0) / np.float32(max(len(rows), 1)))
    total = torch.zeros(tokens.shape[1])
    for block in small_blocks(tokens):
        total += block.sum(dim=0, dtype=torch.float32)
    return total / max(len(tokens), 1)
