"""Heads on one vector per clip: they never touch the token map."""

import torch
from torch import Tensor, nn

from featcache.heads.base import HeadSpec, Inputs, Parameters
from featcache.heads.pooled import Norm, PooledHead


class Linear(PooledHead):
    """One linear layer on the clip vector.

    Source:
        arXiv 2509.24901, baseline ``linear``: "if the model exposes a last-layer [cls] ... if not,
        mean pool over all token positions"

    >>> Linear(dim=8, num_classes=3)(None, torch.zeros(2, 8), None).shape
    torch.Size([2, 3])
    """

    rates = "vector"

    def __init__(self, dim: int, num_classes: int, *, norm: Norm = "none", dropout: float = 0.0) -> None:
        super().__init__(dim, num_classes, norm=norm, dropout=dropout)

    def pool(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        assert cls is not None
        return cls

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """The clip vector, K times."""
        _, cls, _ = inputs
        assert cls is not None
        return cls.expand(len(own["classify.weight"]), -1, -1)


class Mlp(PooledHead):
    """Two linear layers on the clip vector, with a ReLU between them.

    The paper's width could not be found; half the token width is what the same authors' Bird-MAE
    uses.

    Source:
        arXiv 2509.24901, baseline ``mlp``; width after https://github.com/DBD-research-group/Bird-MAE
    """

    rates = "vector"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        hidden: int | None = None,
        norm: Norm = "none",
        dropout: float = 0.0,
    ) -> None:
        width = hidden or dim // 2
        super().__init__(width, num_classes, norm=norm, dropout=dropout)
        self.hidden = nn.Linear(dim, width)

    def pool(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return torch.relu(self.hidden(cls))

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """The hidden units of all heads in one product."""
        _, cls, _ = inputs
        assert cls is not None
        K, H, D = own["hidden.weight"].shape
        product = cls @ own["hidden.weight"].reshape(K * H, D).T + own["hidden.bias"].reshape(K * H)
        return product.view(-1, K, H).transpose(0, 1).relu()


PAPER = "arXiv 2509.24901"

LINEAR = HeadSpec(
    name="linear",
    build=Linear,
    reads="cls",
    family="clip vector",
    summary="one linear layer on the cls token, or on the mean token where there is none",
    formula="W cls + b",
    parameters="D*C + C",
    source=PAPER,
    in_paper=True,
)
LINEAR_MEAN = HeadSpec(
    name="linear-mean",
    build=Linear,
    reads="mean",
    family="clip vector",
    summary="one linear layer on the mean of the valid tokens",
    formula="W mean_n z_n + b",
    parameters="D*C + C",
    source=f"{PAPER} (`linear` of encoders without cls)",
)
MLP = HeadSpec(
    name="mlp",
    build=Mlp,
    reads="cls",
    family="clip vector",
    summary="two linear layers on the clip vector, ReLU between",
    formula="W relu(V cls + a) + b",
    parameters="D*H + H + H*C + C",
    source=f"{PAPER}; width not found, H = D/2 as in Bird-MAE",
    in_paper=True,
)
