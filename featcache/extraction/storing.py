"""Encoded clips on their way into a cache's writer."""

from typing import NamedTuple

import torch
from torch import Tensor

from featcache.cache import CacheWriter
from featcache.cache.format.channels import sample_clips
from featcache.errors import InputError
from featcache.extraction.batcher import ClipTokens


class Item(NamedTuple):
    """What a clip is called in a cache."""

    id: str
    key: bytes


class Storing:
    """Takes clips whose tokens may be in the store's own dtype already.

    The first few of a new cache wait, since the writer looks at them as they were computed before any is
    stored: tokens that were cast do not tell what the cast has lost.

    Args:
        dtype: of the tokens that come; None as they were computed

    Attributes:
        count: clips that were taken
    """

    def __init__(self, writer: CacheWriter, dtype: torch.dtype | None) -> None:
        layout = writer.layout
        self.dtype, self.count = dtype, 0
        self._writer, self._sample = writer, sample_clips(layout)
        looked_at = layout.channels and not layout.scales_channels and not writer.done_keys
        self._first: list[tuple[Item, ClipTokens]] | None = [] if looked_at else None

    def __call__(self, item: Item, clip: ClipTokens) -> None:
        """Store one clip."""
        self.count += 1
        if self._first is None:
            self._add(item, clip)
            return
        self._first.append((item, clip))
        if len(self._first) == self._sample:
            self.let_go()

    def let_go(self) -> None:
        """Store the clips that wait, however few there are; before a shard ends.

        Raises:
            InputError: the storage dtype would flatten channels.
        """
        if not self._first:
            return
        first, self._first = self._first, None
        layers = self._writer.layout.layers
        self._writer.first.choose(
            {layer: [_exact(clip, layer)[: clip.valid] for _, clip in first] for layer in layers}
        )
        for item, clip in first:
            self._add(item, clip)

    def _add(self, item: Item, clip: ClipTokens) -> None:
        try:
            self._put(item, clip)
        except InputError:  # tokens that were cast cannot tell how large a value was that has become infinite
            self._put(item, clip._replace(tokens={layer: _exact(clip, layer) for layer in clip.tokens}))

    def _put(self, item: Item, clip: ClipTokens) -> None:
        self._writer.add(item.id, item.key, clip.tokens, clip.cls, clip.valid, clip.mean)


def _exact(clip: ClipTokens, layer: int) -> Tensor:
    return clip.computed[layer].float().cpu()
