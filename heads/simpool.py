"""SimPool: the mean token attends all others."""

import torch
from torch import Tensor, nn
from torch.nn import functional as nn_f

from featcache.heads.attentive import attention_weights
from featcache.heads.base import HeadSpec, Inputs, Parameters
from featcache.heads.linear import PAPER
from featcache.heads.pooled import Norm, PooledHead
from featcache.heads.pooling import mean_tokens, seen


class SimPool(PooledHead):
    """Attention with the mean token as the query, on layer-normalised tokens that are the values too.

    Source:
        ``simpool``: Psomas et al. 2023, arXiv 2309.06891 (gamma None), as in
        https://github.com/billpsomas/efficient-probing, poolings/simpool.py @ 3a87bff

    >>> sum(p.numel() for p in SimPool(dim=768, num_classes=10).parameters())
    1188874
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
        super().__init__(dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)

    def attention(self, tokens: Tensor, valid: Tensor | None) -> Tensor:
        """The weight of every token, (B, N)."""
        return self._weights(tokens, self._plain(tokens), valid)

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        plain = self._plain(tokens)
        mean = torch.bmm(self._weights(tokens, plain, valid).unsqueeze(1), plain).squeeze(1)
        return mean * self.norm.weight + self.norm.bias

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        """One layer norm for all heads, and two products over its tokens; they carry no gradient here."""
        tokens, _, valid = inputs
        assert tokens is not None
        plain = self._plain(tokens)
        query = mean_tokens(tokens, valid) @ own["query.weight"].transpose(1, 2)  # (K, B, D)
        folded = self._folded(query, own["key.weight"], own["norm.weight"].unsqueeze(1))
        logits = torch.bmm(plain, folded.permute(1, 2, 0))  # (B, N, K)
        if valid is not None:
            logits = logits.masked_fill(~seen(valid).unsqueeze(-1), -torch.inf)
        mean = torch.bmm(logits.softmax(dim=1).transpose(1, 2), plain).transpose(0, 1)  # (K, B, D)
        return mean * own["norm.weight"].unsqueeze(1) + own["norm.bias"].unsqueeze(1)

    def _plain(self, tokens: Tensor) -> Tensor:
        """Normalised tokens before the weight and bias of the norm, which are folded into what follows."""
        plain: Tensor = nn_f.layer_norm(tokens, tokens.shape[-1:], eps=self.norm.eps)
        return plain

    def _weights(self, tokens: Tensor, plain: Tensor, valid: Tensor | None) -> Tensor:
        query = self.query(mean_tokens(tokens, valid))
        folded = self._folded(query, self.key.weight, self.norm.weight)  # (B, D)
        return attention_weights(torch.einsum("bd,bnd->bn", folded, plain), valid)

    @staticmethod
    def _folded(query: Tensor, key: Tensor, gain: Tensor) -> Tensor:
        """What a normalised token is multiplied with; the norm's bias moves all tokens of a clip alike."""
        folded: Tensor = query @ key * gain * query.shape[-1] ** -0.5
        return folded


SIMPOOL = HeadSpec(
    name="simpool",
    build=SimPool,
    reads="tokens",
    family="attentive",
    summary="attention with the mean token as the query",
    formula="W sum_n softmax_n(Q mean(z) . K y_n / sqrt(D)) y_n + b, y = LN(z)",
    parameters="2*D*D + 2*D + D*C + C",
    source=f"{PAPER}; SimPool, arXiv 2309.06891",
    in_paper=True,
)
