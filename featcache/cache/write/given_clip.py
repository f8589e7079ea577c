"""One clip as a caller gives it to a writer, checked."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from featcache.cache.format.layout import KEY_BYTES, CacheLayout
from featcache.errors import InputError


class GivenClip(NamedTuple):
    """What a buffer takes.

    Attributes:
        tokens: layer -> (n, D) floats
        cls: layer -> (D,), where the encoder has one
        mean: layer -> (D,), where the caller knows it better than from ``tokens``
        valid: tokens that stand for audio; they come first
    """

    id: str
    key: bytes
    tokens: Mapping[int, Tensor]
    cls: Mapping[int, Tensor] | None
    mean: Mapping[int, Tensor] | None
    valid: int

    def copy(self) -> "GivenClip":
        """The same in memory of its own."""
        tokens = {layer: values.detach().clone() for layer, values in self.tokens.items()}
        return self._replace(tokens=tokens, cls=_cloned(self.cls), mean=_cloned(self.mean))


def check_clip(layout: CacheLayout, clip: GivenClip) -> None:
    """Make sure that a clip fits the layout.

    Raises:
        InputError: a shape does not.
    """
    if len(clip.key) != KEY_BYTES:
        raise InputError(f"clip {clip.id!r}: a key has {KEY_BYTES} bytes, not {len(clip.key)}")
    if (clip.cls is not None) != layout.has_cls:
        raise InputError(f"clip {clip.id!r}: the cache was created with has_cls={layout.has_cls}")
    for layer in layout.layers:
        shape = tuple(clip.tokens[layer].shape) if layer in clip.tokens else ()
        if len(shape) != 2 or shape[1] != layout.dim or shape[0] > layout.num_tokens:
            raise InputError(
                f"clip {clip.id!r}: layer {layer} needs tokens (n <= {layout.num_tokens}, {layout.dim}), "
                f"found {shape or 'none'}"
            )
        if not 0 <= clip.valid <= shape[0]:
            raise InputError(f"clip {clip.id!r}: {clip.valid} valid tokens of {shape[0]}")


def _cloned(by_layer: Mapping[int, Tensor] | None) -> dict[int, Tensor] | None:
    return None if by_layer is None else {layer: own.detach().clone() for layer, own in by_layer.items()}
