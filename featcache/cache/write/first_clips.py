"""The first clips of a cache, held until the scales of its channels follow from them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from featcache.cache.format.channels import sample_clips
from featcache.cache.format.durable import writing
from featcache.cache.format.layout import CacheLayout
from featcache.cache.read.reader import TokenCache
from featcache.cache.write.given_clip import GivenClip
from featcache.cache.write.sample import check_dtype, publish_scales, stored_scales, write_scale
from featcache.cache.write.shard_queue import ShardQueue
from featcache.errors import MismatchError


class FirstClips:
    """Clips on their way to the queue; the first few wait here.

    They wait until the scales of channels follow from them, and until it is sure that the storage dtype
    keeps all channels.
    """

    def __init__(self, path: Path, layout: CacheLayout, queue: ShardQueue) -> None:
        self._path, self._layout, self._queue = path, layout, queue
        self._held: list[GivenClip] | None = [] if layout.channels and not queue.finished.counts else None
        if layout.scales_channels and (scales := stored_scales(path, layout)):
            self._queue.scale_channels(scales)
            self._held = None

    @property
    def wanted(self) -> int:
        """How many clips `choose` wants; 0 where the scales of channels are known, or there are none."""
        return sample_clips(self._layout) if self._layout.scales_channels and self._held is not None else 0

    def choose(self, sample: Mapping[int, Sequence[Tensor]]) -> None:
        """Choose the scales of channels from a few clips, or take those that another writer has chosen.

        Args:
            sample: layer -> the valid tokens of each clip, (n, D)

        Raises:
            InputError: the storage dtype would flatten channels.
        """
        check_dtype(self._layout, sample)
        if self._layout.scales_channels:
            with writing(self._path):
                publish_scales(self._path, self._layout, sample)
                self._queue.scale_channels(stored_scales(self._path, self._layout) or {})
        held, self._held = self._held, None
        for clip in held or ():
            self._put(clip)

    def add(self, clip: GivenClip) -> None:
        """Pass a clip on, or hold a copy of it while there are too few."""
        if self._held is None:
            self._put(clip)
        else:
            self._held.append(clip.copy())
            if len(self._held) == sample_clips(self._layout):
                self.let_go()

    def let_go(self) -> None:
        """Pass on the clips that were held, now that there are enough of them, or all that there are."""
        if self._held:
            self.choose(
                {
                    layer: [clip.tokens[layer][: clip.valid] for clip in self._held]
                    for layer in self._layout.layers
                }
            )

    def check_scales(self, source: TokenCache) -> None:
        """Make sure that int8 and int4 tokens of another cache mean the same here; take its scales if first.

        Raises:
            MismatchError: the scales of channels differ.
        """
        if self._layout.scales_channels and self._held is not None:
            self._take_scales(source)
        elif self._layout.store.scaled and not self._has_scales_of(source):
            raise MismatchError(
                f"{source.path} and {self._path} scale channels of {self._layout.dtype} tokens differently, "
                "so clips cannot be copied as they are stored; extract them anew, or to another path"
            )

    def _take_scales(self, source: TokenCache) -> None:
        with writing(self._path):
            for layer in self._layout.layers:
                scale = source.channel_scale(layer)
                scale = torch.ones(self._layout.dim) if scale is None else scale
                write_scale(self._path, self._layout.channel_scale(layer), scale.numpy())
            self._queue.scale_channels(stored_scales(self._path, self._layout) or {})
        self._held = None

    def _has_scales_of(self, source: TokenCache) -> bool:
        ones = torch.ones(self._layout.dim)
        own = stored_scales(self._path, self._layout) if self._layout.scales_channels else None
        pairs = [((own or {}).get(layer), source.channel_scale(layer)) for layer in self._layout.layers]
        return all(torch.equal(*(ones if scale is None else scale for scale in pair)) for pair in pairs)

    def _put(self, clip: GivenClip) -> None:
        with self._queue.next_buffer() as buffer:
            buffer.put(clip)
