"""The paired bootstrap: what is drawn, how wide its intervals are, how small its p can be."""

from pathlib import Path

import numpy as np
import pytest

from featcache.heads.report.bootstrap import redrawn
from featcache.heads.report.metrics import mean_average_precision
from featcache.heads.report.results import Result
from featcache.heads.report.significance import differences, holm, p_value
from featcache.heads.report.summary import cells


def names(start: int, count: int) -> list[str]:
    return [f"c{index:05d}" for index in range(start, start + count)]  # in order as words, too


def pair(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and logits of a better and of a worse head that share what makes a clip hard."""
    labels = (random.random((n, 2)) < 0.4).astype(np.uint8)
    hard = 0.7 * random.standard_normal((n, 2))
    better, worse = (skill * labels + hard + 0.7 * random.standard_normal((n, 2)) for skill in (1.4, 1.0))
    return labels, better, worse


def test_folds_of_equal_size_are_drawn_apart_and_one_fold_alike_in_any_order() -> None:
    labels, logits, _ = pair(np.random.default_rng(0), 40)
    one = redrawn(names(0, 40), logits, labels, "mAP", 200)
    other_fold = redrawn(names(40, 40), logits, labels, "mAP", 200)
    assert abs(np.corrcoef(one, other_fold)[0, 1]) < 0.3
    turned = redrawn(names(0, 40)[::-1], logits[::-1], labels[::-1], "mAP", 200)
    np.testing.assert_allclose(turned, one, rtol=1e-6)


def test_recordings_are_drawn_whole() -> None:
    targets = np.random.default_rng(0).integers(2, size=100)
    logits = np.eye(2)[np.random.default_rng(1).integers(2, size=100)]
    ids = names(0, 400)
    clips = redrawn(ids, np.repeat(logits, 4, axis=0), np.repeat(targets, 4), "accuracy", 2000)
    groups = [str(index // 4) for index in range(400)]
    whole = redrawn(ids, np.repeat(logits, 4, axis=0), np.repeat(targets, 4), "accuracy", 2000, groups)
    assert whole.std() / clips.std() == pytest.approx(2, rel=0.1)  # a fourth of the independent things


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 3])
def test_intervals_hold_the_true_difference_as_often_as_they_say(folds: int) -> None:
    random, n = np.random.default_rng(folds), 60
    tables = [pair(random, n) for _ in range(3000)]
    true = np.mean(
        [mean_average_precision(labels, a) - mean_average_precision(labels, b) for labels, a, b in tables]
    )
    held = 0
    for number in range(140):
        gaps = []
        for fold in range(folds):
            labels, *heads = tables[number * folds + fold]
            ids = names((number * folds + fold) * n, n)
            better, worse = (redrawn(ids, logits, labels, "mAP", 250) for logits in heads)
            gaps.append(better - worse)
        low, high = np.quantile(np.mean(gaps, axis=0), [0.025, 0.975])
        held += low <= true <= high
    assert 0.9 * 140 <= held <= 0.99 * 140


def test_p_is_the_share_of_draws_where_they_resolve_it_and_the_normal_tail_beyond() -> None:
    random = np.random.default_rng(0)
    assert p_value(random.normal(1.0, 1.0, 2000)) == pytest.approx(0.317, abs=0.04)
    assert p_value(random.normal(4.5, 1.0, 2000)) == pytest.approx(6.8e-6, rel=0.9)
    assert p_value(np.ones(2000)) == pytest.approx(2 / 2001)  # no spread: no tail


def test_sixty_comparisons_can_be_significant_together() -> None:
    labels, better, _ = pair(np.random.default_rng(0), 400)
    worse = np.random.default_rng(1).standard_normal(better.shape)
    ids = names(0, 400)
    gap = redrawn(ids, better, labels, "mAP", 1000) - redrawn(ids, worse, labels, "mAP", 1000)
    assert max(holm([p_value(gap)] * 60)) < 0.01


def test_p_of_few_clips_is_never_below_what_they_can_show() -> None:
    labels, ids = np.zeros(8, dtype=np.int64), names(0, 8)
    right, wrong = np.eye(2)[labels], np.eye(2)[1 - labels]
    wrong[:1] = right[:1]  # seven clips tell them apart, all for the same head
    gap = redrawn(ids, right, labels, "accuracy", 2000) - redrawn(ids, wrong, labels, "accuracy", 2000)
    assert p_value(gap, 8, 7) == pytest.approx(2 * 0.5**7)  # the sign test
    assert p_value(gap, 8, 0) == 1.0
    gap = np.random.default_rng(0).normal(4.5, 1.0, 2000)
    assert p_value(gap) < 1e-4 < p_value(gap, 8) < 0.01  # Student's tail of eight clips, not the normal


def score(tmp_path: Path, ids: list[str], hits: np.ndarray, number: int, head: str) -> Result:
    """A result line of one run of a head on one drawn test set."""
    name = f"{head}{number}.npz"
    targets = np.zeros(len(ids), dtype=np.int64)
    np.savez(tmp_path / name, ids=ids, logits=np.stack([hits, 1 - hits], axis=1), targets=targets)
    own = {
        "encoder": "e", "dataset": "d", "head": head, "options": {}, "layer": 1, "last_layer": True,
        "fold": None,
        "metric": "accuracy", "valid": None, "test": {"accuracy": float(hits.mean())}, "seed": number,
        "draw": number, "cache": {"dtype": "float16", "digest": "c"}, "files": {"scores": name},
    }  # fmt: skip
    return Result(own, tmp_path)


def test_test_sets_that_overlap_are_redrawn_together(tmp_path: Path) -> None:
    """Five splits of 150 clips that share a test set tell no more of the clips than one; folds do."""
    random, widths = np.random.default_rng(0), []
    right = {head: (random.random(150) < chance).astype(float) for head, chance in (("a", 0.9), ("b", 0.5))}
    for starts in ([0], range(5), range(0, 150, 30)):
        results = [
            score(tmp_path, names(start, 30), right[head][start : start + 30], number, head)
            for head in right
            for number, start in enumerate(starts)
        ]
        (gap,) = differences(cells(results))
        widths.append(gap.high - gap.low)
    assert widths[1] == pytest.approx(widths[0], rel=0.25)  # shifted by a clip each: almost the same set
    assert widths[2] == pytest.approx(widths[0] / 5**0.5, rel=0.25)
