"""How a head learns, and that what it has learned can be saved."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from featcache.heads.base import Head, Inputs
from featcache.heads.checkpoint import load, save
from featcache.heads.testing.case import LIMIT, Case, answer, gap


def gradients(case: Case) -> Iterator[str]:
    """Of clips that can be heard, and beside one that is all padding and all zeros."""
    for what, inputs in (("", case.inputs()), (" beside a clip of padding alone", _one_silent(case))):
        head = case.build().train()
        logits = head(*inputs)
        if not logits.isfinite().all():
            yield f"gives logits that are not finite{what}"
            continue
        logits.square().sum().backward()
        for name, value in head.named_parameters():
            if value.grad is None:
                yield f"parameter {name} gets no gradient{what}"
            elif not value.grad.isfinite().all():
                yield f"the gradient of {name} is not finite{what}"


def _one_silent(case: Case) -> Inputs:
    for part in (inputs := case.inputs()):
        if part is not None:
            part[0] = 0
    return inputs


def groups(case: Case) -> Iterator[str]:
    head = case.build()
    groups = head.param_groups(lr=0.1, weight_decay=0.01)
    found = [id(value) for group in groups for value in group["params"]]
    for name, value in head.named_parameters():
        if (times := found.count(id(value))) != 1:
            yield f"param_groups has {name} {times} times, not once"
    if any(not {"lr", "weight_decay"} <= set(group) for group in groups):
        yield "param_groups has a group without lr or weight_decay"


def penalty(case: Case) -> Iterator[str]:
    head = case.build()
    own = {name: value.detach().clone().requires_grad_() for name, value in head.named_parameters()}
    penalty = head.penalty(own)
    if penalty is None:
        if type(head).penalty is not Head.penalty:
            yield "has a penalty that gives None; leave the method out, or give a scalar"
    elif penalty.shape != () or not penalty.isfinite():
        yield f"penalty gives a tensor {tuple(penalty.shape)} that is not one finite number"
    elif penalty.requires_grad:  # one that is zero by its options may have no gradient
        moved = torch.autograd.grad(penalty, list(own.values()), allow_unused=True)
        if all(gradient is None for gradient in moved):
            yield "penalty does not depend on the parameters it is given; compute it from own, not from self"


def saving(case: Case) -> Iterator[str]:
    for own in case.variants():
        head = case.build(**own).train()
        head(*case.inputs(seed=2))  # statistics that a head may keep are saved, too
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "head.safetensors"
            save(head, path)
            loaded = load(path, head=case.spec)
        rounding = LIMIT if head.config.get("norm") == "batch" else 0.0  # it becomes part of the weights
        if gap(answer(loaded, case.inputs()), answer(head, case.inputs())) > rounding:
            yield (
                f"{case.words(own)}gives other logits when it is saved and loaded; keep all it learns in "
                "parameters and buffers"
            )
