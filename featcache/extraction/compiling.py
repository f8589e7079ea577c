"""The encoder compiled by torch for the one shape that most batches have."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from featcache.devices import out_of_memory
from featcache.encoders.base import Encoded
from featcache.errors import InputError


class CompiledForward:
    """A forward pass for batches of clips of full length.

    Every further shape would be compiled anew, for half a minute each, and give other last bits. So batches
    that are not full are filled up, and shorter clips are none of its business.

    Args:
        forward: features (B, ...) to tokens
        shape: of the features of a full batch
    """

    def __init__(self, forward: Callable[[Tensor], Encoded], shape: Sequence[int]) -> None:
        self._forward: Callable[[Tensor], Encoded] = torch.compile(forward, dynamic=False)
        self._shape = tuple(shape)

    def takes(self, features: Tensor) -> bool:
        """Whether it is for these."""
        full, *rest = self._shape
        return list(features.shape[1:]) == rest and len(features) <= full

    def __call__(self, features: Tensor) -> Encoded:
        """Features (B, ...) that it takes to the tokens of these clips."""
        count, missing = len(features), self._shape[0] - len(features)
        if missing:
            features = torch.cat([features, features[-1:].expand(missing, *features.shape[1:])])
        tokens, cls = self._forward(features)
        return Encoded(_first(tokens, count), cls and _first(cls, count))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say what a first call could not do.

        Raises:
            InputError: there is no compiler, the encoder is not for it, or the batch is too large.
        """
        try:
            yield
        except RuntimeError as error:
            from torch._dynamo.exc import TorchDynamoException  # it takes a second

            if out_of_memory(error):
                raise InputError(
                    f"the device has no memory for a batch of {self._shape[0]} clips; take fewer",
                    options=("batch_size",),
                ) from error
            if not isinstance(error, TorchDynamoException):
                raise
            reason = " ".join(str(error).split("\n\n")[0].split())  # what follows is advice to developers
            raise InputError(
                f"the encoder cannot be compiled here ({reason}); install a C++ compiler, or go without",
                options=("compiled",),
            ) from error


def _first(layers: dict[int, Tensor], count: int) -> dict[int, Tensor]:
    return {layer: value[:count] for layer, value in layers.items()}
