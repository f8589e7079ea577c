"""Random numbers of a head's own: initial weights and dropout do not depend on its neighbours."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as nn_f


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed out of several numbers; near inputs give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from this seed inside, and leave the global generators as they were."""
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed also leaves a note, with its caller's stack, for every kind of device that has not
        # been used yet: 1 ms a head and step.
        torch.default_generator.manual_seed(seed)
        for own in cuda:
            with torch.cuda.device(own):
                torch.cuda.manual_seed(seed)
        yield


class Streams:
    """The dropout of K heads at one step: each draws from (its seed, the step) alone.

    So nothing has to be saved for a resumed run, and a head alone sees the same masks.
    """

    def __init__(self, seeds: Sequence[int], step: int, device: torch.device) -> None:
        self.seeds, self.step, self.device = seeds, step, device

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        """What is drawn inside is head ``row``'s."""
        with seeded(mixed_seed(self.seeds[row], self.step), self.device):
            yield

    def dropout(self, values: Tensor, p: float) -> Tensor:
        """``nn.Dropout`` over (K, …), row by row."""
        if p == 0:
            return values
        dropped = []
        for row in range(len(self.seeds)):
            with self.of(row):
                dropped.append(nn_f.dropout(values[row], p))
        return torch.stack(dropped)
