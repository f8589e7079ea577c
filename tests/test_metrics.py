"""Each metric against scikit-learn where it has it, else against a loop."""

import numpy as np
import pytest
from sklearn import metrics as sk

from featcache.heads.report.metrics import (
    auroc,
    average_precision,
    classes_without_positives,
    ece,
    macro_f1,
    mean_average_precision,
    micro_average_precision,
    top1,
)


@pytest.fixture(params=["distinct", "tied", "all equal"])
def clips(request):
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(60, 7))
    if request.param == "tied":
        scores = np.round(scores)
    if request.param == "all equal":
        scores = np.zeros_like(scores)
    labels = (generator.random((60, 7)) < 0.2).astype(np.float32)
    labels[:, 6] = 0
    return labels, scores


def test_average_precision_equals_sklearn(clips):
    labels, scores = clips
    expected = [sk.average_precision_score(labels[:, c], scores[:, c]) for c in range(6)]
    np.testing.assert_allclose(average_precision(labels, scores)[:6], expected, rtol=1e-12)
    assert np.isnan(average_precision(labels, scores)[6])


def test_macro_map_excludes_and_counts_classes_without_positives(clips):
    labels, scores = clips
    expected = sk.average_precision_score(labels[:, :6], scores[:, :6], average="macro")
    assert mean_average_precision(labels, scores) == pytest.approx(expected, rel=1e-12)
    assert classes_without_positives(labels) == 1


def test_micro_map_equals_sklearn(clips):
    labels, scores = clips
    expected = sk.average_precision_score(labels, scores, average="micro")
    assert micro_average_precision(labels, scores) == pytest.approx(expected, rel=1e-12)


def test_auroc_equals_sklearn(clips):
    labels, scores = clips
    expected = sk.roc_auc_score(labels[:, :6], scores[:, :6], average="macro")
    assert auroc(labels, scores) == pytest.approx(expected, rel=1e-12)


def test_macro_f1_equals_sklearn(clips):
    labels, scores = clips
    expected = sk.f1_score(labels, scores > 0, average="macro", zero_division=0)
    assert macro_f1(labels, scores) == pytest.approx(expected, rel=1e-12)


def test_top1_equals_sklearn():
    generator = np.random.default_rng(1)
    truth, scores = generator.integers(0, 5, 40), generator.normal(size=(40, 5))
    expected = sk.accuracy_score(truth, scores.argmax(axis=1))
    assert top1(np.eye(5)[truth], scores) == pytest.approx(expected)


def test_top1_leaves_out_clips_without_labels():
    assert top1(np.array([[0, 0], [0, 1]]), np.array([[1.0, 0.0], [0.0, 1.0]])) == 1.0


@pytest.mark.parametrize("single_label", [False, True])
def test_ece_equals_a_loop_over_bins(single_label):
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(50, 4)) * 2
    labels = np.eye(4)[generator.integers(0, 4, 50)]
    if single_label:
        chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        confidence, correct = chance.max(axis=1), labels[np.arange(50), chance.argmax(axis=1)]
    else:
        confidence, correct = 1 / (1 + np.exp(-logits)).ravel(), labels.ravel()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    assert ece(labels, logits, single_label=single_label) == pytest.approx(expected, rel=1e-9)


def test_a_perfect_score_scores_one():
    labels = np.eye(3)[[0, 1, 2, 0]]
    perfect = labels * 60 - 30
    for metric in (mean_average_precision, micro_average_precision, auroc, top1, macro_f1):
        assert metric(labels, perfect) == 1.0, metric
    assert ece(labels, perfect) < 1e-6
