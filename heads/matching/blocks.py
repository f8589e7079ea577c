"""The prototype match in torch operations, a block of similarities at a time: runs anywhere.

Products are in float32 (float64 for float64 tokens) on every processor. bfloat16 products would choose
other winners, and where a CPU has instructions for them the compiled form was faster still.
"""

import torch
from torch import Tensor

NEEDS = "nothing"

# Similarities held at once. A block must fit the second-level caches of a CPU, and fill a GPU.
BLOCK_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}


def serves(tokens: Tensor, prototypes: Tensor) -> bool:
    """Always."""
    return True


def search(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, winning tokens, and one over their lengths: each (B, P)."""
    exact = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    direction = torch.nn.functional.normalize(prototypes.to(exact), dim=-1)
    B, N, _ = tokens.shape
    scores = direction.new_empty(B, len(direction))
    index, inverse = torch.empty_like(scores, dtype=torch.int64), torch.empty_like(scores)
    width = max(1, BLOCK_BYTES.get(tokens.device.type, 2 << 20) // (N * direction.element_size()))
    for b in range(B):
        unit = 1 / tokens[b].to(exact).norm(dim=-1).clamp(min=1e-12)  # (N,)
        hidden = None if valid is None else ~valid[b].unsqueeze(-1)
        for p in range(0, len(direction), width):
            block = slice(p, p + width)
            similarity = tokens[b].to(exact) @ direction[block].T * unit.unsqueeze(-1)  # (N, width)
            if hidden is not None:
                similarity = similarity.masked_fill_(hidden, -torch.inf)
            winner = similarity.argmax(dim=0)
            index[b, block], inverse[b, block] = winner, unit[winner]
            # From the token itself: padding, where it has to stand for a clip, is hidden in the map.
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
