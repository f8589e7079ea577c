"""The prototype match: for each clip and prototype, the token that is most like it.

``match`` is the one entry; ``match_reference`` is the plain form that every fast one equals. A fast
form ("engine") is a module with three functions: ``serves`` says for which tokens it works here,
``search`` finds the winning tokens, ``gather`` adds them up again for the gradient.
"""

import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.errors import InputError, unknown
from featcache.heads.matching import blocks, cuda, native

# In the order in which "auto" takes the first that serves; ``blocks`` serves everything.
ENGINES: dict[str, ModuleType] = {"cuda": cuda, "native": native, "blocks": blocks}
TINY = 1e-12  # shorter vectors are not stretched to length one, as in torch's normalize


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


def match(tokens: Tensor, prototypes: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The largest cosine over a clip's valid tokens, for each prototype, and the token that has it.

    Gradients reach the prototypes, and the tokens if they ask for them, through the winning token
    alone (as those of a maximum do). Which token wins is decided in the engine's number format (the
    tolerances are in docs/matching.md); the score and the gradients are those of that token, in
    the precision of the prototypes. A token's length does not matter, so int8 tokens are matched
    as they are stored, without their scale. ``FEATCACHE_MATCH`` chooses the form, see ``ENGINES``.

    Shape:
        - tokens: (B, N, D), any float dtype or int8
        - prototypes: (P, D)
        - valid: (B, N) bool; None counts all tokens; a clip without any scores its first token
        - scores: (B, P), in the dtype of the prototypes
        - index: (B, P) int64, into N

    Raises:
        InputError: the shapes do not fit, or this machine lacks the form that was asked for.

    >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]])
    >>> scores, index = match(tokens, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    >>> scores.tolist(), index.tolist()
    ([[1.0, 1.0]], [[1, 2]])
    """
    _check(tokens, prototypes, valid)
    if is_plain():
        return match_reference(tokens, prototypes, valid)
    scores, index, _ = _match(tokens, prototypes, valid)
    return scores, index


def is_plain() -> bool:
    """Whether plain operations are needed: by an exporter, or as FEATCACHE_MATCH=reference asks for them."""
    # The custom operation below is known to this library alone.
    exporting = torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
    return exporting or chosen() == "reference"


def chosen() -> str:
    """The form that ``FEATCACHE_MATCH`` asks for: "auto" unless it is set.

    Raises:
        InputError: there is no such form.
    """
    name = os.environ.get("FEATCACHE_MATCH") or "auto"
    if name not in ("auto", "reference", *ENGINES):
        raise unknown("form of the match (FEATCACHE_MATCH)", name, ["auto", "reference", *ENGINES])
    return name


def engine(tokens: Tensor, prototypes: Tensor) -> ModuleType:
    """The fast form for these: the one asked for, else by device and dtype alone.

    Which instructions a processor has beyond AVX2 does not count: no result depends on it.
    """
    name = chosen()
    if name != "auto":
        if not ENGINES[name].serves(tokens, prototypes):
            raise InputError(
                f"FEATCACHE_MATCH={name} cannot match {tokens.dtype} tokens on {tokens.device.type} here "
                f"({ENGINES[name].NEEDS}); use blocks, or unset it"
            )
        return ENGINES[name]
    return next(form for form in ENGINES.values() if form.serves(tokens, prototypes))


def _check(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> None:
    """Compiled code reads where it is told to: shapes that do not fit must not get there."""
    if tokens.ndim != 3 or prototypes.ndim != 2 or tokens.shape[2] != prototypes.shape[1]:
        raise InputError(
            f"a match needs tokens (B, N, D) and prototypes (P, D), found {tuple(tokens.shape)} and "
            f"{tuple(prototypes.shape)}; build the head for the width of the tokens"
        )
    if valid is not None and (valid.shape != tokens.shape[:2] or valid.dtype != torch.bool):
        raise InputError(
            f"valid must be a bool mask {tuple(tokens.shape[:2])}, found {tuple(valid.shape)} of "
            f"{valid.dtype}; TokenCache.mask(rows) gives it"
        )


@torch.library.custom_op("featcache::match", mutates_args=())
def _match(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, index, and one over the length of the winning tokens; each (B, P)."""
    best = engine(tokens, prototypes).search(tokens.contiguous(), prototypes.contiguous(), valid)
    scores, index, inverse = best
    return scores.to(prototypes.dtype), index, inverse


@torch.library.custom_op("featcache::match_gather", mutates_args=())
def gather_winners(tokens: Tensor, prototypes: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """For each prototype, the sum over clips of weight (B, P) times the winning token: (P, D)."""
    total: Tensor = engine(tokens, prototypes).gather(tokens.contiguous(), weight.contiguous(), index)
    return total.to(prototypes.dtype)


@_match.register_fake
def _(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    scores = prototypes.new_empty(tokens.shape[0], prototypes.shape[0])
    return scores, torch.empty_like(scores, dtype=torch.int64), torch.empty_like(scores, dtype=_exact(tokens))


@gather_winners.register_fake
def _(tokens: Tensor, prototypes: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    return torch.empty_like(prototypes)


def _exact(tokens: Tensor) -> torch.dtype:
    return torch.float64 if tokens.dtype == torch.float64 else torch.float32


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: tuple[Tensor, ...]) -> None:
    tokens, prototypes, _ = inputs
    scores, index, inverse = output
    ctx.mark_non_differentiable(index, inverse)
    ctx.save_for_backward(tokens, prototypes, scores, index, inverse)


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, None]:
    tokens, prototypes, scores, index, inverse = ctx.saved_tensors
    length = prototypes.norm(dim=-1, keepdim=True).clamp(min=TINY)
    to_tokens = to_prototypes = None
    if ctx.needs_input_grad[1]:
        pull = gather_winners(tokens, prototypes, (grad * inverse).to(inverse.dtype), index)
        # Only the part across the prototype moves a cosine.
        along = torch.einsum("pd,pd->p", prototypes, pull).unsqueeze(-1) / length.square()
        to_prototypes = torch.addcmul(pull, prototypes, along, value=-1).div_(length)
    if ctx.needs_input_grad[0]:
        to_tokens = _token_gradient(tokens, prototypes / length, grad, scores, index)
    return to_tokens, to_prototypes, None


def _token_gradient(tokens: Tensor, direction: Tensor, grad: Tensor, scores: Tensor, index: Tensor) -> Tensor:
    """Each winning token is pulled towards its prototypes, across its own direction: (B, N, D)."""
    result = torch.zeros_like(tokens)
    exact = _exact(tokens)
    for b in range(tokens.shape[0]):
        token = tokens[b].to(exact)
        length = token.norm(dim=-1, keepdim=True).clamp(min=TINY)
        pull = torch.zeros_like(token).index_add_(0, index[b], (grad[b].unsqueeze(-1) * direction).to(exact))
        along = token.new_zeros(token.shape[0]).index_add_(0, index[b], (grad[b] * scores[b]).to(exact))
        result[b] = ((pull - along.unsqueeze(-1) * token / length) / length).to(tokens.dtype)
    return result


_match.register_autograd(_backward, setup_context=_setup)
