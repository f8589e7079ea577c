"""Where and when: what prototype heads say of single frames and single tokens."""

import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.heads.base import Head
from featcache.heads.matching import match


class Framewise(Head):
    """For heads whose logits are a function of one score per prototype.

    All methods take time-major tokens of a full (F, T) grid, and ``cls`` where the head reads it.
    """

    def tokens_for_match(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        raise NotImplementedError

    def prototypes_for_match(self) -> Tensor:
        raise NotImplementedError

    def logits_from_scores(self, scores: Tensor) -> Tensor:
        raise NotImplementedError

    def _matched(self, tokens: Tensor, cls: Tensor | None) -> Tensor:
        own, vector, _ = self.standardized(tokens, cls, None)
        assert own is not None  # they went in
        return self.tokens_for_match(own, vector, None)

    def scores_over_time(self, tokens: Tensor, grid: tuple[int, int], cls: Tensor | None = None) -> Tensor:
        """Maximum over frequency alone: (B, T, P). The maximum of these over time are the clip's scores."""
        (F, T), B = grid, len(tokens)
        frames = self._matched(tokens, cls).reshape(B * T, F, -1)
        scores, _ = match(frames, self.prototypes_for_match())
        return scores.view(B, T, -1)

    def logits_over_time(self, tokens: Tensor, grid: tuple[int, int], cls: Tensor | None = None) -> Tensor:
        """Logits of every time step, (B, T, C): the head's last layer on ``scores_over_time``."""
        return self.logits_from_scores(self.scores_over_time(tokens, grid, cls))

    def activation_map(self, tokens: Tensor, grid: tuple[int, int], cls: Tensor | None = None) -> Tensor:
        """The cosine of every token with every prototype: (B, P, F, T), for pictures of a few clips."""
        F, T = grid
        prototypes = nn_f.normalize(self.prototypes_for_match(), dim=-1)
        tokens = self._matched(tokens, cls).to(prototypes.dtype)
        similarity = torch.einsum("bnd,pd->bpn", nn_f.normalize(tokens, dim=-1), prototypes)
        return similarity.view(*similarity.shape[:2], T, F).transpose(2, 3)

    def evidence_map(
        self, tokens: Tensor, grid: tuple[int, int], label: int, cls: Tensor | None = None
    ) -> Tensor:
        """How much each token speaks for a class: (B, F, T).

        It is the class's logit of a clip that consists of this token alone, less the logit of a clip
        that is like no prototype at all (all scores zero): for protobin the sum over prototypes of
        weight times cosine. Positive: for the class, negative: against it.

        Args:
            label: the number of the class.
        """
        scores = self.activation_map(tokens, grid, cls).movedim(1, -1)  # (B, F, T, P)
        silence = self.logits_from_scores(torch.zeros_like(scores[0, 0, 0]))
        return (self.logits_from_scores(scores) - silence)[..., label]
