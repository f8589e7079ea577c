"""What every head promises: a row of the table of heads, and a module with one signature."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

Reads = Literal["cls", "mean", "tokens", "tokens+cls", "layers"]


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One row of the table of heads: what is true before a head is built.

    ``reads`` says what of a clip the head needs: ``cls`` (the mean of the tokens where an encoder
    has no cls) and ``mean`` come as ``cls`` with ``tokens=None``; ``tokens`` and ``tokens+cls``
    as the full map; ``layers`` as the maps of all kept layers, tokens (B, layers, N, D).
    """

    name: str
    build: Callable[..., "Head"]
    reads: Reads
    family: Literal["clip vector", "token map", "attentive", "prototypes", "layers"]
    summary: str
    formula: str
    parameters: str  # how many, in terms of D, C, P, F, layers
    source: str
    in_paper: bool  # one of the eleven poolings of arXiv 2509.24901
    ordered: bool = False  # True where the order of the tokens matters (it reads the grid)


class Head(nn.Module):
    """A module ``(tokens, cls, valid) -> logits (B, C)`` that knows how it was built.

    Shape:
        - tokens: (B, N, D) or None, of any float dtype; (B, layers, N, D) where the head reads layers
        - cls: (B, D) or None
        - valid: (B, N) bool or None (all tokens count)
    """

    config: dict[str, Any]  # set by build_head: name, sizes and options, enough to build it again
    undecayed: tuple[str, ...] = ()  # parameters that weight decay must not shrink

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """AdamW groups: matrices decay; vectors (biases, norms, queries) and ``undecayed`` do not."""
        decay: list[Tensor] = []
        keep: list[Tensor] = []
        for name, parameter in self.named_parameters():
            exempt = parameter.ndim < 2 or name in self.undecayed
            (keep if exempt else decay).append(parameter)
        groups = [
            {"params": decay, "lr": lr, "weight_decay": weight_decay},
            {"params": keep, "lr": lr, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]
