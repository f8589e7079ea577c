"""A few labelled clips of each class: nested draws from a train split, for learning curves."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

NONE = ("",)  # what a clip without labels counts as: a class of its own


def draw_shots(
    labels: Sequence[Sequence[str]], groups: Sequence[int], shots: Sequence[int], seed: int
) -> dict[int, list[int]]:
    """For each number of shots the clips to train on, in order; a smaller draw is part of a larger.

    In rounds, the rarest class first: in round k a class takes clips until it has k, or all it has;
    a clip counts for each of its labels. One clip of each recording comes before a second of any.
    So the draw of k shots depends on neither the other numbers nor on what is beyond it.

    Args:
        labels: of each clip; clips with none are drawn as a class of their own
        groups: the recording of each clip

    Source:
        Nested few-shot subsets as Rauch et al. 2025 (Bird-MAE, https://arxiv.org/abs/2504.12880)
        draw for multi-label data; rounds are ours, and make them nested.

    >>> draw_shots([["a"], ["a"], ["a", "b"], ["b"], ["b"]], [0, 0, 1, 2, 3], [1, 9], seed=0)[9]
    [0, 1, 2, 3, 4]
    """
    owned = [tuple(own) or NONE for own in labels]
    order = _order(owned, groups, seed)
    rarest = sorted(order, key=lambda label: (len(order[label]), label))
    waiting = {label: iter(order[label]) for label in rarest}
    counts: Counter[str] = Counter()
    chosen: set[int] = set()
    found = {}
    for count in range(1, 1 + min(max(shots), max(map(len, order.values())))):
        for label in rarest:
            while counts[label] < min(count, len(order[label])):
                clip = next(clip for clip in waiting[label] if clip not in chosen)
                chosen.add(clip)
                counts.update(owned[clip])
        found[count] = sorted(chosen) if count in shots else []
    return {count: found.get(count, sorted(chosen)) for count in shots}


def _order(owned: Sequence[Sequence[str]], groups: Sequence[int], seed: int) -> dict[str, list[int]]:
    """The clips of each label in the order in which it takes them."""
    members: dict[str, list[tuple[int, int]]] = {}  # (how many clips of its recording come before, clip)
    seen: Counter[tuple[str, int]] = Counter()
    for clip in np.random.default_rng(seed).permutation(len(owned)).tolist():
        for label in owned[clip]:
            members.setdefault(label, []).append((seen[label, groups[clip]], clip))
            seen[label, groups[clip]] += 1
    return {
        label: [clip for _, clip in sorted(own, key=lambda pair: pair[0])] for label, own in members.items()
    }
