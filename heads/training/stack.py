"""K heads of one shape as one set of parameters (K, …), and their logits from one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from featcache.heads.base import Head, Inputs, Parameters, has_stacked_form
from featcache.heads.pooled import PooledHead, stacked_classify, stacked_norm
from featcache.heads.training.rng import Streams


class Stack:
    """Heads that differ in their weights alone.

    A head with a stacked form (``PooledHead.stacked_pool``) runs as a few large products; any other
    one runs head by head on the shared batch. Both give what each head would give alone.
    """

    def __init__(self, heads: Sequence[Head], device: torch.device) -> None:
        self.template = heads[0].to(device)
        states = [head.state_dict() for head in heads]
        learned = {name for name, _ in heads[0].named_parameters()}
        stacked = {name: torch.stack([state[name].to(device) for state in states]) for name in states[0]}
        self.parameters = {name: stacked[name].requires_grad_() for name in stacked if name in learned}
        self.buffers = {name: value for name, value in stacked.items() if name not in learned}
        self.size = len(heads)

    def logits(self, inputs: Inputs, streams: Streams | None) -> Tensor:
        """Logits (K, B, C); ``streams`` draw each head's dropout, None is evaluation."""
        head = self.template.train(streams is not None)
        if isinstance(head, PooledHead) and has_stacked_form(head):
            features = head.stacked_pool(self.parameters, head.ready(*head.standardized(*inputs)))
            features = stacked_norm(head, self.buffers, features.to(head.classify.weight.dtype))
            if streams is not None:
                features = streams.dropout(features, head.dropout.p)
            return stacked_classify(self.parameters, features)
        return torch.stack([self._one(row, inputs, streams) for row in range(self.size)])

    def penalties(self) -> Tensor:
        """What each head adds to its loss by itself, (K,)."""
        if type(self.template).penalty is Head.penalty:
            return torch.zeros(self.size, device=next(iter(self.parameters.values())).device)
        added: Tensor = torch.vmap(self._penalty)(self.parameters)
        return added

    def _penalty(self, own: Parameters) -> Tensor:
        penalty = self.template.penalty(own)
        assert penalty is not None  # a head's own class says what it adds
        return penalty

    def _one(self, row: int, inputs: Inputs, streams: Streams | None) -> Tensor:
        # In-place updates of buffers (batch norm) reach the stack: a row is a view of it.
        state = {name: value[row] for name, value in {**self.parameters, **self.buffers}.items()}
        if streams is None:
            logits: Tensor = functional_call(self.template, state, inputs)
            return logits
        with streams.of(row):
            drawn: Tensor = functional_call(self.template, state, inputs)
            return drawn

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these heads alone."""
        chosen = list(rows)
        self.parameters = {
            name: value.detach()[chosen].clone().requires_grad_() for name, value in self.parameters.items()
        }
        self.buffers = {name: value[chosen].clone() for name, value in self.buffers.items()}
        self.size = len(chosen)

    def state(self) -> dict[str, Tensor]:
        """All weights, stacked."""
        return {name: value.detach() for name, value in {**self.parameters, **self.buffers}.items()}
