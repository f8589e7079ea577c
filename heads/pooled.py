"""The common shape of heads: features of a clip, a norm if asked for, dropout, one linear layer."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as nn_f

from featcache.heads.base import Head, Inputs, Parameters

Norm = Literal["none", "batch", "layer"]
MOMENTUM, EPS = 0.1, 1e-5  # torch's


class FeatureNorm(nn.Module):
    """Batch norm without weights of its own, as MAE, AIM and M2D put before the classifier of a probe.

    Evaluation uses running statistics: a clip's logits do not depend on the clips beside it.

    Source:
        He et al. 2022, arXiv 2111.06377, appendix A.1; https://github.com/apple/ml-aim
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("num_batches", torch.zeros(()))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """A saved head has no count of batches: it matters in training alone."""
        state_dict.setdefault(f"{prefix}num_batches", torch.zeros(()))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, width); training moves the running statistics, see ``batch_norm``."""
        own = (self.running_mean, self.running_var, self.num_batches)
        normed = batch_norm(features.unsqueeze(0), self.training, *(value.unsqueeze(0) for value in own))
        return normed.squeeze(0)


def batch_norm(features: Tensor, training: bool, mean: Tensor, variance: Tensor, batches: Tensor) -> Tensor:
    """The norm of K heads' features (K, B, width), each by its own statistics, which training moves in place.

    They are the average over the first ten batches, and from then on move by a tenth (torch's momentum):
    torch's own start at 0 and 1, of which 0.9 ** n is left after n batches, and a short training of features
    that are far from 0 is then evaluated by statistics of nothing.

    Shape:
        - mean, variance: (K, width)
        - batches: (K,), how many each head has seen
    """
    K, B, width = features.shape
    side_by_side = features.transpose(0, 1).reshape(B, K * width)
    if training:
        own_mean, own_variance = torch.zeros_like(mean).view(-1), torch.ones_like(variance).view(-1)
        normed = nn_f.batch_norm(side_by_side, own_mean, own_variance, training=True, momentum=1.0, eps=EPS)
        batches += 1
        share = (1 / batches).clamp(min=MOMENTUM).unsqueeze(1)
        mean += share * (own_mean.view(K, width) - mean)
        variance += share * (own_variance.view(K, width) - variance)
    else:
        normed = nn_f.batch_norm(side_by_side, mean.reshape(-1), variance.reshape(-1), eps=EPS)
    return normed.view(B, K, width).transpose(0, 1)


def build_norm(norm: Norm, width: int) -> nn.Module:
    """The norm of (B, width) features: "none", "batch", or "layer" (over the features of each clip)."""
    if norm == "batch":
        return FeatureNorm(width)
    return nn.LayerNorm(width, elementwise_affine=False) if norm == "layer" else nn.Identity()


class PooledHead(Head):
    """``pool`` makes features (B, width) of a clip; norm, dropout and a linear layer make its logits.

    A subclass writes ``pool``. Where it also writes ``stacked_pool`` itself, many heads that differ
    in their weights alone are trained by a few large products.

    Args:
        width: of the features
        norm: "none", "batch" or "layer", between the features and the linear layer
        use_padding: let padding tokens count as well
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        *,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__()
        assert norm in get_args(Norm)  # build_head checks what users give
        self.feature_norm = build_norm(norm, width)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, num_classes)
        self.use_padding = use_padding

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        """Features (B, width) of clips; tokens and cls come in the dtype of the weights."""
        raise NotImplementedError

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """Features (K, B, width) of K heads that share their inputs, row by row as ``pool`` has them."""
        raise NotImplementedError

    def forward(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        pooled = self.pool(*self.ready(tokens, cls, valid))  # type: ignore[arg-type]
        return self.logits_of(pooled)

    def ready(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Inputs:
        """The inputs as ``pool`` takes them: floats of the weights' kind, padding hidden unless it counts."""
        dtype = self.classify.weight.dtype
        if tokens is not None and not self.direction_only:
            tokens = tokens.to(dtype)
        return tokens, None if cls is None else cls.to(dtype), None if self.use_padding else valid

    def logits_of(self, features: Tensor) -> Tensor:
        """Features (..., width) to logits (..., C): the part after the pooling."""
        flat = self.feature_norm(features.to(self.classify.weight.dtype).reshape(-1, features.shape[-1]))
        logits: Tensor = self.classify(self.dropout(flat.view(features.shape)))
        return logits


def stacked_norm(head: PooledHead, buffers: Parameters, features: Tensor) -> Tensor:
    """The norm of K heads' features (K, B, width), each with its own statistics in ``buffers``."""
    if not isinstance(head.feature_norm, FeatureNorm):
        normed: Tensor = head.feature_norm(features)
        return normed
    own = (buffers[f"feature_norm.{name}"] for name in ("running_mean", "running_var", "num_batches"))
    return batch_norm(features, head.training, *own)


def stacked_classify(own: Parameters, features: Tensor) -> Tensor:
    """Features (K, B, width) through K linear layers: (K, B, C)."""
    bias, weight = own["classify.bias"], own["classify.weight"]
    if features.stride(0) == 0:  # the same for all heads: one product instead of K
        K, C, D = weight.shape
        product = features[0] @ weight.reshape(K * C, D).T + bias.reshape(K * C)
        return product.view(-1, K, C).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))
