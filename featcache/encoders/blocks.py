"""Running a stack of transformer blocks and keeping the outputs of some."""

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor


def run_blocks(
    blocks: Iterable[Callable[[Tensor], Tensor]], hidden: Tensor, layers: Sequence[int]
) -> dict[int, Tensor]:
    """Outputs of the blocks ``layers`` (1-based); none runs past the last of them.

    >>> import torch
    >>> run_blocks([lambda x: x + 1, lambda x: x / "never run"], torch.zeros(1), [1])
    {1: tensor([1.])}
    """
    wanted = set(layers)
    kept: dict[int, Tensor] = {}
    for layer, block in enumerate(blocks, start=1):
        hidden = block(hidden)
        if layer in wanted:
            kept[layer] = hidden
        if len(kept) == len(wanted):
            break
    return kept
