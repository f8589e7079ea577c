"""The prototype match in torch operations, a block of similarities at a time: runs anywhere.

Products are in bfloat16 or int8 where the processor has instructions for them, in float32 where not.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

# Similarities held at once. A block must fit the second-level caches of a CPU, and fill a GPU.
BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}


def search(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, winning tokens, and one over their lengths: each (B, P)."""
    exact = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    direction = torch.nn.functional.normalize(prototypes.to(exact), dim=-1)
    B, N, _ = tokens.shape
    scores = direction.new_empty(B, len(direction))
    index, inverse = torch.empty_like(scores, dtype=torch.int64), torch.empty_like(scores)
    width = max(1, BLOCK_BYTES.get(tokens.device.type, 2 << 20) // (N * direction.element_size()))
    similarity_to = _similarity(tokens, direction)
    for b in range(B):
        unit = 1 / tokens[b].to(exact).norm(dim=-1).clamp(min=1e-12)  # (N,)
        hidden = None if valid is None else ~valid[b].unsqueeze(-1)
        for p in range(0, len(direction), width):
            block = slice(p, p + width)
            similarity = similarity_to(tokens[b], unit, block)  # (N, width)
            if hidden is not None:
                similarity = similarity.masked_fill_(hidden, -torch.inf)
            winner = similarity.argmax(dim=0)
            index[b, block], inverse[b, block] = winner, unit[winner]
            # The low precision has chosen; the value is computed again in full.
            chosen = tokens[b].index_select(0, winner).to(exact)
            scores[b, block] = torch.einsum("pd,pd->p", chosen, direction[block]) * unit[winner]
    return scores, index, inverse


def gather(tokens: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """For each prototype, the sum over clips of weight (B, P) times the winning token: (P, D)."""
    B, P = weight.shape
    total = weight.new_zeros(P, tokens.shape[-1])
    for b in range(B):
        total.addcmul_(tokens[b].index_select(0, index[b]).to(weight.dtype), weight[b].unsqueeze(-1))
    return total


def _similarity(tokens: Tensor, direction: Tensor) -> Callable[[Tensor, Tensor, slice], Tensor]:
    """How to compare one clip's tokens (N, D) with a block of prototypes: (N, width)."""
    if tokens.dtype == torch.int8 and is_binary(direction) and fast_int8(tokens.device.type):
        signs = direction.sign().to(torch.int8)
        return lambda token, unit, block: torch._int_mm(token, signs[block].T).float() * unit.unsqueeze(-1)
    dtype = direction.dtype
    if dtype == torch.float32 and fast_bfloat16(tokens.device.type):
        dtype = torch.bfloat16
    rounded = direction.to(dtype)
    return lambda token, unit, block: (
        (token.to(direction.dtype) * unit.unsqueeze(-1)).to(dtype) @ rounded[block].T
    )


def is_binary(prototypes: Tensor) -> bool:
    """Whether all values have the same size, so that signs say everything."""
    size = prototypes.abs()
    return bool((size == size[:1, :1]).all()) and bool(size[0, 0] > 0)


@cache
def fast_bfloat16(device: str) -> bool:
    return device == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


@cache
def fast_int8(device: str) -> bool:
    # Elsewhere than on CPUs with VNNI torch._int_mm falls back to a loop that is slower than float.
    return device == "cpu" and torch.cpu._is_vnni_supported()
