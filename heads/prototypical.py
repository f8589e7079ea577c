"""Prototype heads: how much does the most similar token of a clip look like each prototype."""

import torch
from torch import Tensor, nn
from torch.nn import functional as nn_f

from featcache.heads.base import HeadSpec, Inputs, Parameters
from featcache.heads.binarize import binarize
from featcache.heads.framewise import Framewise
from featcache.heads.linear import PAPER
from featcache.heads.matching import match
from featcache.heads.pooled import Norm, PooledHead
from featcache.heads.pooling import mean_tokens


def default_per_class(num_classes: int) -> int:
    """The paper's J: 20 prototypes a class, 10 for label sets as large as AudioSet's."""
    return 20 if num_classes <= 500 else 10


class ProtoFloat(Framewise, PooledHead):
    """Float prototypes without a class: maximum cosine over tokens, then one dense linear layer.

    Args:
        num_prototypes: P in all; ``per_class * num_classes`` where it is not given.
        use_padding: let padding tokens win as well.

    Source:
        arXiv 2509.24901, Table 7 (``protofloat``)
    """

    undecayed = ("prototypes",)
    direction_only = True
    rates = "prototypes"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        per_class: int | None = None,
        num_prototypes: int | None = None,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        P = num_prototypes or (per_class or default_per_class(num_classes)) * num_classes
        super().__init__(P, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        self.prototypes = nn.Parameter(torch.randn(P, dim) * 0.02)

    def tokens_for_match(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        """The (B, N, D) vectors that ``match`` compares prototypes with: the tokens as they are."""
        return tokens

    def prototypes_for_match(self) -> Tensor:
        """The (P, D) vectors that ``match`` compares tokens with."""
        return self.prototypes

    def logits_from_scores(self, scores: Tensor) -> Tensor:
        """Scores (..., P) to logits (..., C): the part after the match."""
        return self.logits_of(scores)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        """The score of each prototype, (B, P)."""
        scores, _ = match(tokens, self.prototypes_for_match(), valid)
        return scores

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """One match over the prototypes of all heads."""
        tokens, _, valid = inputs
        assert tokens is not None
        K, P, D = own["prototypes"].shape
        scores, _ = match(tokens, own["prototypes"].reshape(K * P, D), valid)
        return scores.view(-1, K, P).transpose(0, 1)

    def kept_floats(self, num_tokens: int) -> int:
        return 4 * len(self.prototypes)

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) + 2.0 * self.prototypes.numel() * (num_tokens - 1)


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

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        per_class: int | None = None,
        num_prototypes: int | None = None,
        clip: bool = False,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(
            dim,
            num_classes,
            per_class=per_class,
            num_prototypes=num_prototypes,
            norm=norm,
            dropout=dropout,
            use_padding=use_padding,
        )
        self.clip = clip

    def prototypes_for_match(self) -> Tensor:
        return binarize(self.prototypes, clip=self.clip)

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """As ``ProtoFloat``'s, on the signs."""
        signs = binarize(own["prototypes"], clip=self.clip)
        return super().stacked_pool({"prototypes": signs}, inputs)


class Proto(Framewise):
    """Float prototypes that belong to a class; only they, and only positively, speak for it.

    Tokens enter less the clip vector ("focal similarity"), the cosine is rectified, the weights
    (C, J) are kept non-negative, and ``penalty`` holds a class's prototypes apart. Left out of
    Bird-MAE's code: upsampling the token map first, and its epsilon channels inside the cosine.

    Args:
        focal: subtract the clip vector (the mean token where an encoder has no cls).
        orthogonality: factor of ``penalty``, which is added to the loss.

    Source:
        ``proto``: arXiv 2509.24901; https://github.com/DBD-research-group/Bird-MAE
    """

    undecayed = ("prototypes",)
    rates = "prototypes"

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        per_class: int | None = None,
        focal: bool = True,
        orthogonality: float = 1.0,
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__()
        J = per_class or default_per_class(num_classes)
        self.prototypes = nn.Parameter(torch.rand(num_classes * J, dim))
        self.weight = nn.Parameter(torch.ones(num_classes, J))
        self.bias = nn.Parameter(torch.full((num_classes,), -2.0))
        self.dropout = nn.Dropout(dropout)
        self.focal, self.orthogonality, self.use_padding = focal, orthogonality, use_padding

    def tokens_for_match(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        """The tokens less the clip vector."""
        if not self.focal:
            return tokens
        tokens = tokens.to(self.prototypes.dtype)
        centre = mean_tokens(tokens, valid) if cls is None else cls.to(tokens.dtype)
        return tokens - centre.unsqueeze(1)

    def prototypes_for_match(self) -> Tensor:
        """The (P, D) vectors that ``match`` compares tokens with, class by class."""
        return self.prototypes

    def logits_from_scores(self, scores: Tensor) -> Tensor:
        """Scores (..., P) to logits (..., C): each class reads its own J."""
        own = self.dropout(scores.to(self.weight.dtype).relu()).reshape(
            *scores.shape[:-1], *self.weight.shape
        )
        logits: Tensor = (own * self.weight.relu()).sum(dim=-1) + self.bias
        return logits

    def forward(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        valid = None if self.use_padding else valid
        tokens = self.tokens_for_match(tokens, cls, valid)
        scores, _ = match(tokens, self.prototypes_for_match(), valid)
        return self.logits_from_scores(scores)

    def penalty(self, own: Parameters) -> Tensor:
        """How far each class's prototypes (P, D) are from orthogonal."""
        C, J = self.weight.shape
        unit = nn_f.normalize(own["prototypes"], dim=-1).view(C, J, -1)
        excess = unit @ unit.transpose(1, 2) - torch.eye(J, device=unit.device, dtype=unit.dtype)
        total: Tensor = self.orthogonality * excess.norm() / excess.numel()
        return total

    def operations(self, num_tokens: int) -> float:
        return super().operations(num_tokens) * num_tokens


PROTO = HeadSpec(
    name="proto",
    build=Proto,
    reads="tokens+cls",
    family="prototypes",
    summary="float prototypes of a class on tokens less cls, held orthogonal",
    formula="b_c + sum_j relu(w_cj) relu(max_n cos(p_cj, z_n - cls))",
    parameters="P*D + P + C",
    source=f"{PAPER}; Bird-MAE, arXiv 2504.12880",
    in_paper=True,
)
PROTOFLOAT = HeadSpec(
    name="protofloat",
    build=ProtoFloat,
    reads="tokens",
    family="prototypes",
    summary="float prototypes: maximum cosine over tokens, dense linear layer",
    formula="W s + b, s_p = max_n cos(p_p, z_n)",
    parameters="P*D + P*C + C",
    source=f"{PAPER}, Table 7",
)
PROTOBIN = HeadSpec(
    name="protobin",
    build=ProtoBin,
    reads="tokens",
    family="prototypes",
    summary="binary prototypes: maximum cosine over tokens, dense linear layer",
    formula="W s + b, s_p = max_n cos(sign(u_p), z_n)",
    parameters="P*D + P*C + C",
    source=PAPER,
    in_paper=True,
)
