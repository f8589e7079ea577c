"""Heads that train side by side are what each would be alone: the checks of that."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from featcache.heads.base import Head, has_stacked_form
from featcache.heads.options import options_of
from featcache.heads.pooled import PooledHead
from featcache.heads.testing.case import LIMIT, Case, answer, gap
from featcache.heads.training.rng import Streams
from featcache.heads.training.stack import Stack

SEEDS = (0, 1, 2)


def stacked(case: Case) -> Iterator[str]:
    """Three heads as one stack, in training without dropout and in evaluation."""
    if has_stacked_form(case.build()) and not isinstance(case.build(), PooledHead):
        yield "has a stacked_pool, which is used of heads derived from PooledHead alone"
    dropout = {"dropout": 0.0} if "dropout" in options_of(case.spec) else {}
    for own in case.variants():
        for problem in _as_alone(case, {**dropout, **own}):
            yield f"{case.words(own)}{problem}"


def _as_alone(case: Case, options: dict[str, Any]) -> Iterator[str]:
    heads = [case.build(seed=seed, **options) for seed in SEEDS]
    stack = Stack([case.build(seed=seed, **options) for seed in SEEDS], torch.device("cpu"))
    streams = Streams(SEEDS, 0, torch.device("cpu"))
    inputs = case.inputs()
    form = "its stacked form gives" if has_stacked_form(heads[0]) else "heads that share a batch give"
    alone = []
    for row, head in enumerate(heads):
        with streams.of(row):
            alone.append(head.train()(*inputs))
    together = stack.logits(inputs, streams)
    if (apart := gap(torch.stack(alone), together)) > LIMIT:
        yield f"{form} other logits in training than each head alone, by {apart:.1e}"
        return
    for name, wanted, found in _gradients(heads, alone, stack, together):
        if (apart := gap(wanted, found)) > 10 * LIMIT:
            yield f"{form} another gradient of {name} than each head alone, by {apart:.1e}"
    for name, value in stack.buffers.items():
        wanted = torch.stack([head.state_dict()[name] for head in heads])
        if (apart := gap(wanted.double(), value.double())) > LIMIT:
            yield f"{form} another {name} after a step than each head alone, by {apart:.1e}"
    with torch.no_grad():
        found = stack.logits(inputs, None)
    if (apart := gap(torch.stack([answer(head, inputs) for head in heads]), found)) > LIMIT:
        yield f"{form} other logits in evaluation than each head alone, by {apart:.1e}"
    yield from _penalties(heads, stack)


def _gradients(
    heads: list[Head], alone: list[Tensor], stack: Stack, together: Tensor
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Of each parameter its name and its gradients (K, …): each head's alone, and the stack's."""
    torch.autograd.backward(torch.stack(alone).square().sum())
    names, values = zip(*stack.parameters.items(), strict=True)
    found = torch.autograd.grad(together.square().sum(), values, materialize_grads=True)
    own = [dict(head.named_parameters()) for head in heads]
    for name, gradient in zip(names, found, strict=True):
        yield name, torch.stack([_gradient(each[name]) for each in own]), gradient


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _penalties(heads: list[Head], stack: Stack) -> Iterator[str]:
    own = [head.penalty(dict(head.named_parameters())) for head in heads]
    wanted = torch.tensor([0.0 if value is None else value.item() for value in own])
    if (apart := gap(wanted, stack.penalties().detach())) > LIMIT:
        yield f"its penalty differs by {apart:.1e} between heads side by side and each alone; is it of own?"
