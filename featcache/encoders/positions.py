"""Position tables for clips of another length than the checkpoint's."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Every table here is (1, positions, D), without the rows of cls tokens.


def sincos(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed 2-D sine-cosine positions of a grid, row by row.

    The first half of the width encodes the column, the second the row; each is [sin | cos].

    Source:
        facebookresearch/AudioMAE @bd60e29 util/pos_embed.py, get_2d_sincos_pos_embed_flexible

    >>> sincos(8, 64, 768).shape
    torch.Size([1, 512, 768])
    """
    omega = 10_000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))

    def encode(index: Tensor) -> Tensor:
        angles = index.to(torch.float64)[:, None] * omega
        return torch.cat([angles.sin(), angles.cos()], dim=1)  # (positions, dim / 2)

    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    return torch.cat([encode(column), encode(row)], dim=1).float()[None]


def mae_positions(table: Tensor, columns: int) -> Tensor:
    """AudioMAE's table for ``columns`` patch columns.

    The authors build it for a grid of (8, T) while their tokens run over (T, 8); weights were
    trained with that, so the table is read as (8, T) here too. Shorter clips keep its first
    columns (their ``interpolate_pos_embed_audio``); longer ones append sine-cosine columns, which
    is what their class builds for that length.

    Shape:
        - table: (1, 8 * stored columns, D)
        - output: (1, 8 * columns, D)
    """
    grid = table.reshape(1, 8, -1, table.shape[-1])  # (1, 8, stored, D)
    stored, dim = grid.shape[2:]
    if columns > stored:
        longer = sincos(8, columns, dim).to(table).reshape(1, 8, columns, dim)
        grid = torch.cat([grid, longer[:, :, stored:]], dim=2)
    return grid[:, :, :columns].flatten(1, 2)


def stretch(table: Tensor, columns: int, rows: int = 8) -> Tensor:
    """A learned, time-major table for ``columns``: its first columns, or stretched linearly over time.

    Shape:
        - table: (1, stored columns * rows, D)
        - output: (1, columns * rows, D)
    """
    grid = table.reshape(1, -1, rows, table.shape[-1])  # (1, stored, F, D)
    if columns <= grid.shape[1]:
        return grid[:, :columns].flatten(1, 2)
    image = interpolate(grid.permute(0, 3, 2, 1), size=(rows, columns), mode="bilinear")  # (1, D, F, T)
    return image.permute(0, 3, 2, 1).flatten(1, 2)
