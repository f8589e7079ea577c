"""What a head says of itself, and how it is built."""

from collections.abc import Iterator
from inspect import Parameter
from typing import Any, get_args

import torch
from torch import Tensor

from featcache.errors import InputError
from featcache.heads.base import Head, HeadSpec, Rates
from featcache.heads.options import SIZES, check_options, signature_of
from featcache.heads.testing.case import Case


def signature(case: Case) -> Iterator[str]:
    parameters = signature_of(case.spec)
    free = [own for own in parameters.values() if own.kind is not own.KEYWORD_ONLY]
    if [own.name for own in free[:2]] != ["dim", "num_classes"]:
        yield f"takes ({', '.join(map(str, free[:2]))}) first; wanted (dim, num_classes, *, options)"
    for own in free[2:]:
        if own.kind in (own.VAR_POSITIONAL, own.VAR_KEYWORD):
            yield f"takes {own}; name every option, with its default"
        else:
            yield f"option {own.name} is not keyword-only; put it after a *"
    for own in parameters.values():
        if own.kind is own.KEYWORD_ONLY and own.name not in SIZES:
            yield from _option(case.spec, own)


def _option(spec: HeadSpec, own: Parameter) -> Iterator[str]:
    if own.default is own.empty:
        yield f"option {own.name} has no default; a head must build from its sizes alone"
        return
    try:
        check_options(spec, {own.name: own.default})
    except InputError as error:
        yield f"option {own.name} is refused at its own default: {error}"


def declarations(case: Case) -> Iterator[str]:
    build = case.spec.build
    names = getattr(build, "undecayed", ())
    if not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
        yield f"undecayed is {names!r}, not a tuple of names; a tuple of one is written ('name',)"
    for fact in ("needs_grid", "direction_only"):
        if not isinstance(value := getattr(build, fact, False), bool):
            yield f"{fact} is {value!r}, not True or False"
    if (rates := getattr(build, "rates", "dense")) not in get_args(Rates):
        yield f"rates is {rates!r}, not {' or '.join(map(repr, get_args(Rates)))}"
    if getattr(build, "needs_grid", False) is True and "grid" not in signature_of(case.spec):
        yield "needs_grid is True, but it takes no grid; add the keyword argument grid=None"


def building(case: Case) -> Iterator[str]:
    head: Any = case.build()
    if not isinstance(head, Head):
        yield f"builds a {type(head).__name__}, not a featcache.heads.Head"
        return
    parameters = dict(head.named_parameters())
    if not parameters:
        yield "has no parameters, so there is nothing to train"
    for name, value in parameters.items():
        if value.dtype != torch.float32 or not value.isfinite().all():
            yield f"parameter {name} begins as {value.dtype} that is not all finite float32"
    if len(list(head.named_parameters(remove_duplicate=False))) > len(parameters):
        yield "has one parameter under two names; heads that train side by side cannot be tied so"
    for name in set(head.undecayed) - set(parameters):
        yield f"undecayed names {name}, which is no parameter; it has {', '.join(parameters)}"
    for module in head.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"keeps {name} as a plain tensor, which neither moves nor is saved; use register_buffer"
    again = case.build().state_dict()
    if not all(torch.equal(value, again[name]) for name, value in head.state_dict().items()):
        yield "begins with other weights under the same seed; draw them with torch's own generator"


def sizes(case: Case) -> Iterator[str]:
    """Built without memory, as load builds it first, it has the same tensors."""
    with torch.device("meta"):
        bare = case.build().state_dict()
    for name, value in case.build().state_dict().items():
        if value.shape != bare[name].shape:
            yield f"builds {name} {tuple(value.shape)}, but {tuple(bare[name].shape)} on the meta device"
    head = case.build()
    kept, operations = head.kept_floats(case.num_tokens), head.operations(case.num_tokens)
    if not (isinstance(kept, int) and kept >= 0):
        yield f"kept_floats gives {kept!r}, not a whole number, 0 or more"
    if not (isinstance(operations, int | float) and operations > 0):
        yield f"operations gives {operations!r}, not a number above 0"
