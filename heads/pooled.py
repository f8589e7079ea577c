"""The common shape of heads: features of a clip, a norm if asked for, dropout, one linear layer."""

from typing import Literal, get_args

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

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, width); in training the running statistics move by a tenth."""
        return nn_f.batch_norm(
            features, self.running_mean, self.running_var, training=self.training, momentum=MOMENTUM, eps=EPS
        )


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
    K, B, width = features.shape
    side_by_side = features.transpose(0, 1).reshape(B, K * width)
    mean, variance = (buffers[f"feature_norm.running_{name}"].view(K * width) for name in ("mean", "var"))
    # In training torch also updates the running statistics, in place: they are views of the stack's.
    normed = nn_f.batch_norm(side_by_side, mean, variance, training=head.training, momentum=MOMENTUM, eps=EPS)
    return normed.view(B, K, width).transpose(0, 1)


def stacked_classify(own: Parameters, features: Tensor) -> Tensor:
    """Features (K, B, width) through K linear layers: (K, B, C)."""
    bias, weight = own["classify.bias"], own["classify.weight"]
    if features.stride(0) == 0:  # the same for all heads: one product instead of K
        K, C, D = weight.shape
        product = features[0] @ weight.reshape(K * C, D).T + bias.reshape(K * C)
        return product.view(-1, K, C).transpose(0, 1)
    return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))
