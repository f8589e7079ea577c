"""Heads on one vector per clip: they never touch the token map."""

import torch
from torch import Tensor, nn

from featcache.heads.base import Head


class Linear(Head):
    """One linear layer on the clip vector.

    Source:
        arXiv 2509.24901, baseline ``linear``: "if the model exposes a last-layer [cls] ... if not,
        mean pool over all token positions"

    >>> Linear(dim=8, num_classes=3)(None, torch.zeros(2, 8), None).shape
    torch.Size([2, 3])
    """

    def __init__(self, dim: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor | None, cls: Tensor, valid: Tensor | None) -> Tensor:
        logits: Tensor = self.classify(self.dropout(cls.to(self.classify.weight.dtype)))
        return logits


class Mlp(Head):
    """Two linear layers on the clip vector, with a ReLU between them.

    The paper's width could not be found; half the token width is what the same authors' Bird-MAE
    uses.

    Source:
        arXiv 2509.24901, baseline ``mlp``; width after https://github.com/DBD-research-group/Bird-MAE
    """

    def __init__(
        self, dim: int, num_classes: int, *, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        width = hidden or dim // 2
        self.hidden = nn.Linear(dim, width)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor | None, cls: Tensor, valid: Tensor | None) -> Tensor:
        activity = torch.relu(self.hidden(cls.to(self.hidden.weight.dtype)))
        logits: Tensor = self.classify(self.dropout(activity))
        return logits
