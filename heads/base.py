"""What every head promises: a row of the table of heads, and a module with one signature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from featcache.heads.standardize import Standardizer

if TYPE_CHECKING:
    from featcache.heads.predicting.waveforms import Heard

Reads = Literal["cls", "mean", "tokens", "tokens+cls", "layers"]
Rates = Literal["dense", "vector", "attention", "prototypes"]
Inputs = tuple[Tensor | None, Tensor | None, Tensor | None]  # tokens, cls, valid
Parameters = Mapping[str, Tensor]  # by name; stacked (K, …) where K heads share a forward


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One row of the table of heads: what is true before a head is built.

    ``reads`` says what of a clip the head needs: ``cls`` (the mean of the tokens where an encoder
    has no cls) and ``mean`` come as ``cls`` with ``tokens=None``; ``tokens`` and ``tokens+cls``
    as the full map; ``layers`` as the maps of all kept layers, tokens (B, layers, N, D).
    """

    name: str
    build: Callable[..., "Head"]  # (dim, num_classes, *, options) -> Head; the head's class
    reads: Reads
    family: str  # "clip vector", "token map", "attentive", "prototypes", "layers"
    summary: str
    formula: str
    parameters: str  # how many, in terms of D, C, P, F, layers
    source: str
    in_paper: bool = False  # one of the eleven poolings of arXiv 2509.24901
    code: str = ""  # digest of the source of a user's head; built-in ones go by featcache's version


class Head(nn.Module):
    """A module ``(tokens, cls, valid) -> logits (B, C)`` that says of itself what others must know.

    Shape:
        - tokens: (B, N, D) or None, of any float dtype; (B, layers, N, D) where the head reads layers
        - cls: (B, D) or None; (B, layers, D) where the head reads layers
        - valid: (B, N) bool or None (all tokens count)
    """

    config: dict[str, Any]  # set by build_head: name, sizes and options, enough to build it again
    reads: Reads  # what of a clip it needs, as its spec has it; a user's class says it itself

    undecayed: ClassVar[tuple[str, ...]] = ()  # parameters that weight decay must not shrink
    needs_grid: ClassVar[bool] = False  # takes grid=(F, T): the order of the tokens matters
    direction_only: ClassVar[bool] = False  # a token's length does not matter: it may come as stored
    rates: ClassVar[Rates] = "dense"  # which learning rates fit

    # Of a head that ``load`` gave: what it hears in a waveform, see ``predicting.waveforms.LoadedHead``.
    predict: "Callable[..., list[Heard]]"

    standardizer: Standardizer
    standardizes: bool = False  # has a standardizer, see ``standardize``

    def standardize(self, *shape: int) -> None:
        """Have all inputs standardized from now on, by statistics (D,) or (layers, D) that training sets."""
        self.standardizer = Standardizer(*shape)
        self.standardizes = True
        self.direction_only = False  # type: ignore[misc]  # of what comes in: of tokens as they are stored
        self.register_forward_pre_hook(_standardized)

    def standardized(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Inputs:
        """The inputs with standardized channels, where the head was told to ``standardize``."""
        own = self.standardizer if self.standardizes else None
        if own is None:
            return tokens, cls, valid
        return None if tokens is None else own(tokens), None if cls is None else own(cls), valid

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

    def penalty(self, own: Parameters) -> Tensor | None:
        """What the head adds to its loss by itself, a scalar; None where it adds nothing.

        Args:
            own: its parameters by name; not ``self``'s, for many heads are trained as one
        """
        return None

    def kept_floats(self, num_tokens: int) -> int:
        """Floats a clip that one more head of this kind keeps for its backward pass."""
        return 4 * int(self.config["dim"])

    def operations(self, num_tokens: int) -> float:
        """Multiplications and additions of a clip's forward pass: two a weight, unless said otherwise."""
        return 2.0 * sum(value.numel() for value in self.parameters())


def _standardized(head: Head, inputs: Inputs) -> Inputs:
    return head.standardized(*inputs)


def has_stacked_form(head: Head) -> bool:
    """Whether the head's own class has ``stacked_pool``: one inherited may not fit its ``forward``."""
    return "stacked_pool" in vars(type(head))
