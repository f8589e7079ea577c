"""Positions and padding at other lengths: each written out once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.encoders.ast import ast_positions
from featcache.encoders.eat import _positions
from featcache.encoders.positions import mae_positions, sincos, stretch


def test_sincos_encodes_the_column_then_the_row() -> None:
    table = sincos(3, 5, 16)[0].reshape(3, 5, 16)
    row, column, frequency = 2, 4, 10_000 ** -(torch.arange(4) / 4)
    wanted = [f(index * frequency) for index in (column, row) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(table[row, column], torch.cat(wanted))


@pytest.mark.parametrize("columns", [8, 32, 64, 192])
def test_audiomae_positions_are_those_its_class_builds_for_that_length(columns: int) -> None:
    stored = sincos(8, 64, 32)
    torch.testing.assert_close(mae_positions(stored, columns), sincos(8, columns, 32))


def test_audiomae_positions_come_from_the_checkpoint_where_it_has_them() -> None:
    stored = torch.randn(1, 512, 32)
    wanted = stored.reshape(1, 8, 64, 32)[:, :, :24].reshape(1, 192, 32)
    assert torch.equal(mae_positions(stored, 24), wanted)
    assert torch.equal(mae_positions(stored, 128).reshape(8, 128, 32)[:, :64], stored.reshape(8, 64, 32))


def test_eat_positions_go_on_where_the_table_ends() -> None:
    torch.testing.assert_close(_positions(sincos(64, 8, 32), 8 * 188), sincos(188, 8, 32))
    stored = torch.randn(1, 512, 32)
    assert torch.equal(_positions(stored, 80), stored[:, :80])


def test_learned_positions_are_cut_at_the_end_or_stretched_over_time() -> None:
    ramp = torch.arange(37.0).repeat_interleave(8)[None, :, None]  # each column its number
    assert torch.equal(stretch(ramp, 10), ramp[:, :80])
    longer = stretch(ramp, 74).reshape(74, 8)
    assert torch.equal(longer[:, 0], longer[:, 7])
    centres = ((torch.arange(74) + 0.5) / 2 - 0.5).clamp(0, 36)
    torch.testing.assert_close(longer[:, 3], centres)


def test_ast_positions_are_the_middle_or_stretched() -> None:
    grid = torch.arange(12 * 101.0).reshape(12, 101)  # frequency-major
    assert torch.equal(ast_positions(grid.reshape(1, -1, 1), 101).reshape(12, 101), grid)
    # 101 // 2 - 12 // 2 = 44, as YuanGongND/ast cuts
    assert torch.equal(ast_positions(grid.reshape(1, -1, 1), 12).reshape(12, 12), grid[:, 44:56])
    longer = ast_positions(grid.reshape(1, -1, 1), 202).reshape(12, 202)
    torch.testing.assert_close(longer[:, 1:-1].diff(dim=1), torch.full((12, 199), 0.5), rtol=0, atol=1e-3)


PADDED = {
    "audiomae": 4.2677393 / (2 * 4.5689974),  # zeros in the log-mel are loud
    "eat": 4.268 / (2 * 4.569),
    "ast": 4.2677393 / (2 * 4.5689974),
    "logmel": (-15.942385 + 4.2677393) / (2 * 4.5689974),
    "asit": (-15.942385 + 4.2677393) / (2 * 4.5689974),  # zeros in the waveform
    "birdmae": None,  # the clip's own lowest value
}


@pytest.mark.parametrize("name", PADDED)
def test_a_short_clip_is_padded_with(name: str, small_encoder: Callable[..., Any]) -> None:
    encoder = small_encoder(name, 2.0)
    wave = 0.1 * torch.randn(encoder.sample_rate, generator=torch.Generator().manual_seed(0))
    loud = torch.ones_like(wave).clamp(-1, 1)
    features: Tensor = encoder.frontend([wave - wave.mean(), loud])[0]
    frames = encoder.patches.fbank.num_frames(len(wave))
    wanted = PADDED[name]
    padding = features[frames + 3 :]  # three frames reach over the end of the waveform
    assert len(padding) > 0
    if wanted is None:
        assert (padding == features[:frames].min()).all()
        assert padding[0, 0] > -1.0  # of noise, not of the silent clip beside it
    else:
        torch.testing.assert_close(padding, torch.full_like(padding, wanted), rtol=0, atol=1e-5)
