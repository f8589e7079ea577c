"""How many heads fit side by side: an estimate, so that running out of memory is the exception."""

from collections.abc import Callable, Mapping

import torch

from featcache.devices import free_memory
from featcache.heads.base import Head, has_stacked_form
from featcache.heads.training.trial import Trial


def head_bytes(head: Head, batch_size: int, num_tokens: int) -> int:
    """[bytes] that one more head of this kind adds to a stack in training.

    Weights, gradient, two moments, the best weights and one temporary are six copies; the
    activations are what the stacked form keeps for its backward.
    """
    weights = sum(value.numel() for value in head.parameters())
    kept: int = head.config["num_classes"] * 8 + head.kept_floats(num_tokens)
    return 4 * (6 * weights + batch_size * kept)


def chunks(
    trials: Mapping[int, Trial],
    build: Callable[[Trial], Head],
    batch_size: int,
    num_tokens: int,
    device: torch.device,
) -> list[list[int]]:
    """Numbers of trials of one shape each, as many together as a quarter of the free memory allows.

    Heads without a stacked form gain nothing from company and stay alone.
    """
    shapes: dict[object, list[int]] = {}
    for number, trial in trials.items():
        shapes.setdefault(trial.shape, []).append(number)
    budget = free_memory(device) // 4
    found = []
    for numbers in shapes.values():
        sample = build(trials[numbers[0]])
        fitting = max(1, budget // head_bytes(sample, batch_size, num_tokens))
        size = fitting if has_stacked_form(sample) else 1
        found += [numbers[at : at + size] for at in range(0, len(numbers), size)]
    return found
