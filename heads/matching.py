"""The prototype match: for each clip and prototype, the token that is most like it.

``match`` is the one entry; ``match_reference`` is the plain form that every fast one must equal.
"""

import torch
from torch import Tensor
from torch.nn import functional as nn_f


def match_reference(tokens: Tensor, prototypes: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``match`` in plain torch: every similarity of every token, then the largest.

    Shape:
        - as ``match``; holds a (B, N, P) tensor, which the fast forms never do
    """
    tokens = tokens.to(prototypes.dtype)
    similarity = torch.einsum(
        "bnd,pd->bnp", nn_f.normalize(tokens, dim=-1), nn_f.normalize(prototypes, dim=-1)
    )
    seen = similarity if valid is None else similarity.masked_fill(~valid.unsqueeze(-1), -torch.inf)
    index = seen.argmax(dim=1)  # (B, P)
    # Read from the unmasked map: a clip without any valid token then scores its first token, not -inf.
    return similarity.gather(1, index.unsqueeze(1)).squeeze(1), index


def match(
    tokens: Tensor, prototypes: Tensor, valid: Tensor | None = None, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The largest cosine over a clip's valid tokens, for each prototype, and the token that has it.

    Gradients reach the prototypes, and the tokens if they ask for them, through the winning
    token alone (as those of a maximum do). The cosine does not depend on the length of a token,
    so int8 tokens are matched as they are stored; ``scale`` is accepted and not needed.

    Shape:
        - tokens: (B, N, D), any float dtype or int8
        - prototypes: (P, D)
        - valid: (B, N) bool; None counts all tokens
        - scores: (B, P), in the dtype of the prototypes
        - index: (B, P) int64, into N

    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]])
    >>> scores, index = match(tokens, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    >>> scores.tolist(), index.tolist()
    ([[1.0, 1.0]], [[1, 2]])
    """
    return match_reference(tokens, prototypes, valid)
