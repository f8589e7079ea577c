"""Prototype heads: how much does the most similar token of a clip look like each prototype."""

import torch
from torch import Tensor, nn

from featcache.heads.base import Head
from featcache.heads.binarize import binarize
from featcache.heads.matching import match


def default_per_class(num_classes: int) -> int:
    """The paper's J: 20 prototypes a class, 10 for label sets as large as AudioSet's."""
    return 20 if num_classes <= 500 else 10


class ProtoFloat(Head):
    """Float prototypes without a class: maximum cosine over tokens, then one dense linear layer.

    Args:
        num_prototypes: P in all; ``per_class * num_classes`` where it is not given.
        use_padding: let padding tokens win as well.

    Source:
        arXiv 2509.24901, Table 7 (``protofloat``)
    """

    undecayed = ("prototypes",)

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        per_class: int | None = None,
        num_prototypes: int | None = None,
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__()
        P = num_prototypes or (per_class or default_per_class(num_classes)) * num_classes
        self.prototypes = nn.Parameter(torch.randn(P, dim) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(P, num_classes)
        self.use_padding = use_padding

    def prototypes_for_match(self) -> Tensor:
        """The (P, D) vectors that ``match`` compares tokens with."""
        return self.prototypes

    def logits_from_scores(self, scores: Tensor) -> Tensor:
        """Scores (B, P) to logits (B, C): the part after the match."""
        logits: Tensor = self.classify(self.dropout(scores.to(self.classify.weight.dtype)))
        return logits

    def forward(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        scores, _ = match(tokens, self.prototypes_for_match(), None if self.use_padding else valid)
        return self.logits_from_scores(scores)


class ProtoBin(ProtoFloat):
    """Binary prototypes: the signs of latent float vectors, one bit a weight once trained.

    Args:
        clip: stop the gradient of latent values outside [-1, 1] (the paper does not).

    Source:
        arXiv 2509.24901, section 3; initialisation and gradient as in its co-author's
        ``Protobin`` (BAT, models/heads.py)

    >>> sum(p.numel() for p in ProtoBin(dim=768, num_classes=10).parameters())
    155610
    """

    def __init__(self, dim: int, num_classes: int, *, clip: bool = False, **options: float | None) -> None:
        super().__init__(dim, num_classes, **options)  # type: ignore[arg-type]
        self.clip = clip

    def prototypes_for_match(self) -> Tensor:
        return binarize(self.prototypes, clip=self.clip)
