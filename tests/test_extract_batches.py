"""Batches on their way through the encoder: whose shapes wait for whom, and what comes back of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from featcache.encoders.base import Encoded
from featcache.extraction.runner import MOST_WAITING, Batcher, ClipTokens, Runner

CPU = torch.device("cpu")


class OwnLength(nn.Module):
    """An encoder of one token for each 100 samples, which notes its batches."""

    sample_rate, clip_seconds, grid, dim, depth, has_cls = 1000, 10.0, (1, 100), 3, 1, False

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        return [waveform[:, None].expand(-1, 3) for waveform in waveforms]

    def whole_columns(self, features: Tensor) -> Tensor:
        return features[: len(features) // 100 * 100]

    def valid_tokens(self, num_samples: int) -> int:
        return num_samples // 100

    def settings(self) -> dict[str, Any]:
        return {}

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        self.batches.append(len(features))
        return Encoded({1: features.unflatten(1, (-1, 100)).mean(2)}, None)


def test_clips_wait_for_mates_of_their_shape_but_only_so_many() -> None:
    encoder = OwnLength()
    runner = Runner(encoder, device=CPU, dtype="fp32", layers=(1,))
    stored: dict[int, ClipTokens] = {}
    batcher: Batcher[int] = Batcher(runner, 4, stored.__setitem__)
    random = torch.Generator().manual_seed(0)
    lengths = [int(n) for n in torch.randint(100, 3000, (200,), generator=random)]
    most = 0
    for index, length in enumerate(lengths):
        batcher.push(index, torch.full((length,), float(index)))
        most = max(most, index + 1 - sum(encoder.batches))
    assert most <= (MOST_WAITING + 1) * 4  # and those that wait for the frontend
    batcher.flush()
    assert max(encoder.batches) == 4
    assert sum(encoder.batches) == 200
    assert len(encoder.batches) < 140  # 29 shapes, 16 clips that wait: not each alone
    for index, length in enumerate(lengths):
        assert torch.equal(stored[index].tokens[1], torch.full((length // 100, 3), float(index)))
