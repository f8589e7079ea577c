"""Which strength of the penalty: chosen on the valid split, or by inner folds where that is small."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache.heads.data.tasks import Part, Task
from featcache.heads.report.metrics import all_metrics, label_matrix
from featcache.heads.solved.registry import Scorer, SolvedSpec

FEW = 100  # valid clips; fewer choose too noisily
FOLDS = 5

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Solved:
    """A head with its strength chosen: what it was fitted on, and what it says of the valid clips."""

    scorer: Scorer
    strength: float
    chosen_by: str  # "valid" or "inner folds"
    clips: int  # that it was fitted on
    on_valid: Logits  # (n, C) of the valid clips, by heads that had not seen them
    on_train: Scorer | None = None  # fitted on the train clips alone, where ``scorer`` saw valid, too

    def score(self, features: Tensor) -> Logits:
        """Logits (m, C) of clips' features (m, D)."""
        found: Logits = _logits(self.scorer, features)[0]
        return found

    def score_of_train(self, features: Tensor) -> Logits | None:
        """The same of what was fitted on the train clips alone; None where that is no other head."""
        found: Logits | None = None if self.on_train is None else _logits(self.on_train, features)[0]
        return found


def choose_and_fit(spec: SolvedSpec, task: Task, train: Tensor, valid: Tensor) -> Solved:
    """Choose the strength by the task's metric and fit with it; of equal scores the stronger penalty wins.

    With ``FEW`` valid clips or more they choose, and the head is fitted on the train clips alone. With
    fewer, five inner folds over train and valid together choose (stratified, seed 0, all clips scored
    in one list), and the head is fitted on both; and once more on train alone, to be held against heads
    that were trained on no more. A draw of shots is never joined with valid: its number of
    clips would not be what it says.

    Args:
        train, valid: features (n, D) of the parts of the task
    """
    few = len(task.valid) < FEW and task.shots is None
    parts = [task.train, task.valid] if few else [task.train]
    features = torch.cat([train, valid]) if few else train
    labels = _labels(parts, task)
    if few:
        scores = _unseen(spec, task, features, labels, inner_folds(parts))
        scored = _joined(parts)
    else:
        scores = _logits(spec.fit(features, labels, task.kind, spec.strengths), valid)
        scored = task.valid
    values = [all_metrics(own, scored, task.kind)[task.metric] for own in scores]
    best = int(np.argmax(np.nan_to_num(values, nan=-1.0)))
    strength = spec.strengths[best]
    scorer = spec.fit(features, labels, task.kind, [strength])
    on_valid = scores[best][-len(task.valid) :] if len(task.valid) else scores[best][:0]
    on_train = spec.fit(train, _labels([task.train], task), task.kind, [strength]) if few else None
    return Solved(scorer, strength, "inner folds" if few else "valid", len(features), on_valid, on_train)


def inner_folds(parts: Sequence[Part], seed: int = 0) -> NDArray[np.int64]:
    """A fold 0..4 for each clip of these parts, each label spread as evenly as whole groups allow.

    Clips of one group share a fold, where parts have them; labels are served from the rarest on.
    """
    owned: dict[Hashable, set[int]] = {}
    of_clip: list[Hashable] = []
    for number, part in enumerate(parts):
        names: Sequence[Hashable] = part.groups or [(number, i) for i in range(len(part))]
        for name, target in zip(names, part.targets, strict=True):
            own = np.flatnonzero(target).tolist() if np.ndim(target) else [int(target)]
            owned.setdefault(name, set()).update(own or [-1])
            of_clip.append(name)
    groups = list(owned)
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    counts = {label: sum(label in own for own in owned.values()) for own in owned.values() for label in own}
    fold: dict[Hashable, int] = {}
    sizes = np.zeros(FOLDS, dtype=np.int64)
    for label in sorted(counts, key=lambda label: (counts[label], label)):
        members = [groups[index] for index in order if label in owned[groups[index]]]
        held = np.bincount([fold[name] for name in members if name in fold], minlength=FOLDS)
        for name in members:
            if name not in fold:
                fold[name] = int(np.lexsort((sizes, held))[0])
                held[fold[name]] += 1
                sizes[fold[name]] += 1
    return np.array([fold[name] for name in of_clip])


def _unseen(
    spec: SolvedSpec, task: Task, features: Tensor, labels: Tensor, folds: NDArray[np.int64]
) -> Logits:
    """Logits (S, n, C) of each clip by the heads fitted without its fold."""
    found = np.zeros((len(spec.strengths), *labels.shape), dtype=np.float32)
    for number in np.unique(folds):
        held = folds == number
        seen, unseen = torch.from_numpy(~held), torch.from_numpy(held)
        if seen.any():
            scorer = spec.fit(features[seen], labels[seen], task.kind, spec.strengths)
            found[:, held] = _logits(scorer, features[unseen])
    return found


def _logits(scorer: Scorer, features: Tensor) -> Logits:
    found: Logits = scorer(features).float().numpy()
    return found


def _labels(parts: Sequence[Part], task: Task) -> Tensor:
    return torch.from_numpy(np.concatenate([label_matrix(part, len(task.classes)) for part in parts]))


def _joined(parts: Sequence[Part]) -> Part:
    return Part(
        rows=np.concatenate([part.rows for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        ids=tuple(name for part in parts for name in part.ids),
    )
