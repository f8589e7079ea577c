"""Heads that reduce the token map by a fixed rule: means and maxima."""

import torch
from torch import Tensor

from featcache.errors import InputError
from featcache.heads.base import HeadSpec
from featcache.heads.linear import PAPER
from featcache.heads.pooled import Norm, PooledHead


def seen(valid: Tensor) -> Tensor:
    """The tokens that count: the valid ones; all of them in a clip that has none."""
    return valid | ~valid.any(dim=1, keepdim=True)


def share_of(valid: Tensor | None, like: Tensor) -> Tensor:
    """What every token counts in the mean of a clip, (B, N), in the dtype of ``like`` (B, N)."""
    weight = torch.ones_like(like) if valid is None else seen(valid).to(like.dtype)
    return weight / weight.sum(dim=1, keepdim=True)


def mean_tokens(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of the valid tokens: (B, N, D) to (B, D).

    >>> tokens, valid = torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[True, True, False]])
    >>> mean_tokens(tokens, valid)
    tensor([[2.]])
    """
    if valid is None:
        return tokens.mean(dim=1)
    return torch.bmm(share_of(valid, tokens[..., 0]).unsqueeze(1), tokens).squeeze(1)


def max_tokens(tokens: Tensor, valid: Tensor | None) -> Tensor:
    """Largest value of each feature among the valid tokens: (B, N, D) to (B, D)."""
    if valid is not None:
        tokens = torch.where(seen(valid).unsqueeze(-1), tokens, -torch.inf)
    return tokens.amax(dim=1)


def need_grid(grid: tuple[int, int] | None, name: str) -> tuple[int, int]:
    """The (F, T) of the token map, for heads that cannot do without."""
    if grid is None:
        raise InputError(f"head {name!r} reads the (F, T) grid of the tokens; give grid=(F, T)")
    F, T = grid
    return int(F), int(T)


class LinearC(PooledHead):
    """One linear layer on the clip vector and the mean token, concatenated.

    The paper's definition of ``linearc`` could not be found. Read as: *c* for concatenation, of the
    two vectors that a linear probe may have (as DINOv2's linear evaluation does).
    """

    rates = "vector"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(2 * dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        mean = mean_tokens(tokens, valid)
        return torch.cat([mean if cls is None else cls, mean], dim=-1)


class MeanMax(PooledHead):
    """One linear layer on the mean and the maximum of the tokens, concatenated."""

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(2 * dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return torch.cat([mean_tokens(tokens, valid), max_tokens(tokens, valid)], dim=-1)


class TfMean(PooledHead):
    """Mean over time, frequencies concatenated, one linear layer: keeps where in the spectrum.

    Source:
        Niizumi et al., https://github.com/nttcslab/m2d (which has ``norm="batch"``)
    """

    needs_grid = True

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        grid: tuple[int, int] | None = None,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        rows, columns = need_grid(grid, "tfmean")
        super().__init__(rows * dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        self.grid = rows, columns

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        F, T = self.grid
        B, _, D = tokens.shape
        frames = tokens.reshape(B, T, F * D)  # tokens are time-major
        heard = None if valid is None else valid.reshape(B, T, F).any(dim=-1)
        return mean_tokens(frames, heard)


LINEARC = HeadSpec(
    name="linearc",
    build=LinearC,
    reads="tokens+cls",
    family="token map",
    summary="one linear layer on the clip vector and the mean token",
    formula="W [cls, mean_n z_n] + b",
    parameters="2*D*C + C",
    source=f"{PAPER}; definition not found, read as concatenation",
    in_paper=True,
)
MEANMAX = HeadSpec(
    name="meanmax",
    build=MeanMax,
    reads="tokens",
    family="token map",
    summary="one linear layer on the mean and the maximum token",
    formula="W [mean_n z_n, max_n z_n] + b",
    parameters="2*D*C + C",
    source="a common baseline",
)
TFMEAN = HeadSpec(
    name="tfmean",
    build=TfMean,
    reads="tokens",
    family="token map",
    summary="mean over time, frequencies concatenated, one linear layer",
    formula="W [mean_t z_1t, ..., mean_t z_Ft] + b",
    parameters="F*D*C + C",
    source="Niizumi et al., M2D, arXiv 2210.14648",
)
