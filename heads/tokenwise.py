"""Heads that give every token logits of its own and keep the largest of each class."""

from torch import Tensor, nn

from featcache.heads.base import Head, HeadSpec
from featcache.heads.linear import PAPER
from featcache.heads.pooled import Norm, build_norm
from featcache.heads.pooling import max_tokens, need_grid


class LinPre(Head):
    """A linear layer on every token, then the largest logit of each class.

    The paper's definition of ``linpre`` could not be found. Read as: linear *before* pooling, and the
    pooling a maximum, since with a mean it would be ``linear-mean``.
    """

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__()
        self.norm = build_norm(norm, dim)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(dim, num_classes)
        self.use_padding = use_padding

    def forward(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        valid = None if self.use_padding else valid
        normed = norm_tokens(self.norm, tokens.to(self.classify.weight.dtype), valid)
        logits = self.classify(self.dropout(normed))  # (B, N, C)
        return max_tokens(logits, valid)

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) * num_tokens


class Conv(Head):
    """A 3 x 3 convolution over the (F, T) map to C channels, then the largest logit of each class.

    The paper's definition of ``conv`` could not be found. Read as: ``linpre`` that sees a token's eight
    neighbours too.
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
        super().__init__()
        self.grid = need_grid(grid, "conv")
        self.norm = build_norm(norm, dim)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(dim, num_classes, kernel_size=3, padding=1)
        self.use_padding = use_padding

    def forward(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        valid = None if self.use_padding else valid
        tokens = norm_tokens(self.norm, tokens.to(self.classify.weight.dtype), valid)
        if valid is not None:
            tokens = tokens * valid.unsqueeze(-1).to(
                tokens.dtype
            )  # beyond the audio there is silence, as beyond the edge
        B, _, D = tokens.shape
        F, T = self.grid
        image = tokens.reshape(B, T, F, D).permute(0, 3, 1, 2)  # (B, D, T, F)
        logits = self.classify(self.dropout(image)).flatten(2).transpose(1, 2)  # (B, N, C)
        return max_tokens(logits, valid)

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) * num_tokens


def norm_tokens(norm: nn.Module, tokens: Tensor, valid: Tensor | None) -> Tensor:
    """The norm of every token (B, N, D) that counts; padding stays as it is and is no part of statistics."""
    if isinstance(norm, nn.Identity):
        return tokens
    if valid is None:
        normed: Tensor = norm(tokens.flatten(0, 1)).view(tokens.shape)
        return normed
    return tokens.masked_scatter(valid.unsqueeze(-1), norm(tokens[valid]))


CONV = HeadSpec(
    name="conv",
    build=Conv,
    reads="tokens",
    family="token map",
    summary="3 x 3 convolution to class logits, maximum over the map",
    formula="max_n (conv3x3(z) + b)_n",
    parameters="9*D*C + C",
    source=f"{PAPER}; definition not found, simplest reading",
    in_paper=True,
)
LINPRE = HeadSpec(
    name="linpre",
    build=LinPre,
    reads="tokens",
    family="token map",
    summary="linear layer on every token, maximum over tokens",
    formula="max_n (W z_n + b)",
    parameters="D*C + C",
    source=f"{PAPER}; definition not found, read as linear before pooling",
    in_paper=True,
)
