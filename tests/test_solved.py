"""Solved heads against scikit-learn, what they read, how their penalty is chosen, and beside trained ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from featcache.cache import CacheLayout, CacheWriter, TokenCache
from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.heads.data.tasks import Part, Task
from featcache.heads.probing.probe import probe
from featcache.heads.report.compare import compare
from featcache.heads.report.metrics import mean_average_precision, top1
from featcache.heads.report.results import read_results
from featcache.heads.solved.choose import FEW, choose_and_fit, inner_folds
from featcache.heads.solved.features import FEATURES, PooledFeatures
from featcache.heads.solved.linear import LinearPath
from featcache.heads.solved.logistic import fit_logistic
from featcache.heads.solved.neighbours import fit_centroids, fit_neighbours
from featcache.heads.solved.registry import SOLVED
from featcache.heads.solved.ridge import fit_ridge

Make = Callable[..., tuple[Path, Path]]
QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 16}


def made(
    n: int = 300, D: int = 20, C: int = 4, single: bool = True, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Correlated features of which one is constant, and labels: of train, then of test clips."""
    random = np.random.default_rng(seed)
    labels = np.eye(C)[random.integers(0, C, 2 * n)] if single else (random.random((2 * n, C)) < 0.2)
    inner = random.standard_normal((2 * n, D)) + labels @ random.standard_normal((C, D))
    features = inner @ random.standard_normal((D, D)) + 3
    features[:, 0] = 0.1
    x, y = torch.from_numpy(features), torch.from_numpy(labels.astype(np.uint8))
    return x[:n], y[:n], x[n:], y[n:]


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("D", [20, 400])  # 400: more features than clips
def test_logreg_is_that_of_scikit_learn(strength: float, D: int) -> None:
    x, y, x_test, y_test = made(D=D)
    ours = fit_logistic(x, y, "single-label", [strength])
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=strength, solver="newton-cg", tol=1e-10, max_iter=5000)
    theirs.fit(scaler.transform(x), y.argmax(1))
    gap = np.linalg.norm(ours.coefficients[0].numpy() - theirs.coef_) / np.linalg.norm(theirs.coef_)
    assert gap < 1e-3
    logits = theirs.decision_function(scaler.transform(x_test))
    assert abs(top1(y_test.numpy(), ours(x_test)[0].numpy()) - top1(y_test.numpy(), logits)) <= 0.002


@pytest.mark.parametrize("fit", [fit_logistic, fit_ridge])
def test_channels_that_vary_by_rounding_alone_are_constant(fit: Callable[..., LinearPath]) -> None:
    x, y, x_test, _ = made()
    random = np.random.default_rng(1)

    def beside(features: Tensor) -> Tensor:
        noise = 0.1 * (1 + 3e-7 * random.standard_normal((len(features), 200)))
        return torch.cat([features, torch.from_numpy(noise)], dim=1)

    with_them = fit(beside(x), y, "single-label", [0.1])(beside(x_test))
    torch.testing.assert_close(with_them, fit(x, y, "single-label", [0.1])(x_test), rtol=0, atol=2e-3)


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_multi_label_logreg_is_one_against_the_rest(strength: float) -> None:
    x, y, x_test, y_test = made(single=False)
    ours = fit_logistic(x, y, "multi-label", [strength])
    scaler = StandardScaler().fit(x)
    one = LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
    theirs = OneVsRestClassifier(one).fit(scaler.transform(x), y)
    weights = np.concatenate([each.coef_ for each in theirs.estimators_])
    assert np.linalg.norm(ours.coefficients[0].numpy() - weights) / np.linalg.norm(weights) < 0.01
    logits = theirs.decision_function(scaler.transform(x_test))
    scores = [mean_average_precision(y_test.numpy(), own) for own in (ours(x_test)[0].numpy(), logits)]
    assert abs(scores[0] - scores[1]) < 0.002


def test_a_path_ends_where_each_strength_alone_does() -> None:
    x, y, x_test, _ = made(single=False)
    strengths = SOLVED["logreg"].strengths
    path = fit_logistic(x, y, "multi-label", strengths)(x_test)
    for number in (1, 4, 6):
        alone = fit_logistic(x, y, "multi-label", [strengths[number]])(x_test)[0]
        assert float((path[number] - alone).norm() / alone.norm()) < 0.02


def test_a_class_that_no_clip_has_is_never_the_answer() -> None:
    x, y, x_test, _ = made(C=4)
    y[:, 2] = 0
    keep = y.sum(dim=1) > 0
    for fit in (fit_logistic, fit_ridge):
        logits = fit(x[keep], y[keep], "single-label", [1.0])(x_test)
        assert torch.isfinite(logits).all()
        assert (logits[0].argmax(dim=1) != 2).all()


@pytest.mark.parametrize("D", [20, 400])
def test_ridge_is_that_of_scikit_learn(D: int) -> None:
    x, y, x_test, _ = made(D=D, single=False)
    path = fit_ridge(x, y, "multi-label", [100.0, 0.1])
    scaler = StandardScaler().fit(x)
    for number, alpha in enumerate([100.0, 0.1]):
        theirs = Ridge(alpha=alpha).fit(scaler.transform(x), 2.0 * y.numpy() - 1)
        np.testing.assert_allclose(path.coefficients[number], theirs.coef_, atol=1e-8)
        np.testing.assert_allclose(path(x_test)[number], theirs.predict(scaler.transform(x_test)), atol=1e-7)


def test_knn_is_that_of_scikit_learn_with_the_weights_of_dino() -> None:
    x, y, x_test, _ = made()
    ours = fit_neighbours(x, y, "single-label", [20, 1])(x_test)
    for number, k in enumerate([20, 1]):
        theirs = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
        ).fit(x, y.argmax(1))
        np.testing.assert_allclose(ours[number].exp(), theirs.predict_proba(x_test).clip(1e-6), atol=1e-6)


def test_more_neighbours_than_clips_are_all_clips() -> None:
    x, y, x_test, _ = made(n=8)
    few, many = fit_neighbours(x, y, "multi-label", [50, 8])(x_test)
    assert torch.equal(few, many)


def test_the_nearest_class_mean_is_written_out() -> None:
    x, y, x_test, _ = made(n=40)
    unit = x / x.norm(dim=1, keepdim=True)
    scores = fit_centroids(x, y, "single-label", [1])(x_test)[0]
    for label in range(4):
        mean = unit[y[:, label] == 1].mean(dim=0)
        cosine = (x_test @ mean) / x_test.norm(dim=1) / mean.norm()
        torch.testing.assert_close(scores[:, label], cosine)


def test_a_multi_label_mean_is_set_against_the_mean_of_the_others() -> None:
    x, y, _, _ = made(n=200, single=False)
    scores = fit_centroids(x, y, "multi-label", [1])(x)[0]
    positive, negative = scores[y[:, 0] == 1, 0].mean(), scores[y[:, 0] == 0, 0].mean()
    assert positive > 0
    torch.testing.assert_close(positive, -negative)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_features_are_those_of_a_plain_loop_over_valid_tokens(dtype: str, make_tokens: Make) -> None:
    cache = TokenCache.open(make_tokens(clips=24, has_cls=True, dtype=dtype)[0])
    rows = np.array([5, 0, 17])
    features = PooledFeatures(cache, np.arange(20), [(name, 2) for name in FEATURES])
    found = {name: features.of((name, 2), rows) for name in FEATURES}
    F, T = cache.grid
    for place, row in enumerate(rows.tolist()):
        tokens = cache.tokens([row])[0].float()
        own = tokens[: cache.num_valid[row]]
        frames = [tokens[t * F : (t + 1) * F].flatten() for t in range(T) if t * F < len(own)]
        expected = {
            "cls": cache.cls([row])[0],
            "mean": cache.mean([row])[0],
            "mean+sd": torch.cat([cache.mean([row])[0], own.std(dim=0, correction=0)]),
            "mean+max": torch.cat([cache.mean([row])[0], own.amax(dim=0)]),
            "tfmean": torch.stack(frames).mean(dim=0),
        }
        for name, vector in expected.items():
            torch.testing.assert_close(found[name][place], vector, atol=1e-5, rtol=1e-5)
            assert FEATURES[name].width(cache.dim, cache.grid) == len(vector)


def test_tokens_are_read_once_and_not_at_all_for_what_is_stored(
    make_tokens: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TokenCache.open(make_tokens(clips=24)[0])
    read: list[int] = []
    whole = TokenCache.tokens
    monkeypatch.setattr(
        TokenCache, "tokens", lambda self, rows, layer: read.extend(rows) or whole(self, rows, layer)
    )
    PooledFeatures(cache, np.arange(24), [("mean", 2)])
    assert read == []
    PooledFeatures(cache, np.arange(24), [("tfmean", 2), ("mean+sd", 2), ("mean+max", 2)])
    assert sorted(read) == list(range(24))


def task_of(n: int, valid: int, C: int = 3) -> Task:
    targets = np.arange(n + valid) % C
    parts = [
        Part(rows=np.arange(a, b), targets=targets[a:b], ids=tuple(map(str, range(a, b))))
        for a, b in ((0, n), (n, n + valid))
    ]
    names = tuple(f"c{index}" for index in range(C))
    return Task(name="t", digest="d", kind="single-label", classes=names, train=parts[0], valid=parts[1])


@pytest.mark.parametrize(
    ("valid", "by", "clips"), [(FEW, "valid", 60), (FEW - 1, "inner folds", 60 + FEW - 1)]
)
def test_few_valid_clips_do_not_choose_alone(valid: int, by: str, clips: int) -> None:
    task = task_of(60, valid)
    x = torch.randn(60 + valid, 5, generator=torch.Generator().manual_seed(0))
    solved = choose_and_fit(SOLVED["logreg"], task, x[:60], x[60:])
    assert (solved.chosen_by, solved.clips) == (by, clips)
    assert solved.on_valid.shape == (valid, 3)


def test_of_equal_scores_the_stronger_penalty_wins() -> None:
    task = task_of(60, FEW)
    x = torch.from_numpy(np.eye(3)[np.arange(60 + FEW) % 3])  # any penalty gets all of them
    assert choose_and_fit(SOLVED["logreg"], task, x[:60], x[60:]).strength == 1e-4
    assert choose_and_fit(SOLVED["ridge"], task, x[:60], x[60:]).strength == 1e6
    assert choose_and_fit(SOLVED["knn"], task, x[:60], x[60:]).strength == 50


def test_inner_folds_serve_each_label_and_keep_groups_whole() -> None:
    task = task_of(90, 10)
    folds = inner_folds([task.train, task.valid])
    targets = np.concatenate([task.train.targets, task.valid.targets])
    for label in range(3):
        counts = np.bincount(folds[targets == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    object.__setattr__(task.train, "groups", [f"g{index // 6}" for index in range(90)])
    grouped = inner_folds([task.train])
    assert all(len(set(grouped[start : start + 6])) == 1 for start in range(0, 90, 6))
    assert set(grouped) == set(range(5))


def test_one_clip_a_class_is_still_solved() -> None:
    task = task_of(3, 0)
    for spec in SOLVED.values():
        solved = choose_and_fit(spec, task, torch.eye(3), torch.empty(0, 3))
        assert solved.score(torch.eye(3)).argmax(1).tolist() == [0, 1, 2]


def test_solved_heads_are_probed_like_any_other(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens(has_cls=True)
    names = ["linear", "logreg", "logreg:features=mean+sd", "ridge", "knn", "centroid"]
    said: list[str] = []
    results = probe(*made, heads=names, out=tmp_path, solved=False, seeds=1, say=said.append, **QUICK)
    assert [result.label for result in results] == [
        "linear", "logreg[features=cls]", "logreg[features=mean+sd]", "ridge[features=cls]",
        "knn[features=cls]", "centroid[features=cls]",
    ]  # fmt: skip
    trained, *solved = results
    for result in solved:
        assert result["solved"] is True
        assert set(trained.line) < set(result.line)
        assert set(result["test"]) == set(trained["test"])
        assert result["lr"] is result["epoch"] is None
        assert result["chosen"]["by"] == "inner folds"  # of 24 valid clips
        ids, logits, targets = result.scores()
        assert ids == trained.scores()[0]
        assert result["test"]["mAP"] == pytest.approx(mean_average_precision(targets, logits))
    assert any("C " in line and "by inner folds" in line for line in said)
    assert "Is the best head better?" in [grid.title for grid in compare(tmp_path).grids]


def test_under_every_run_stand_solved_heads_which_are_solved_once(make_tokens: Make, tmp_path: Path) -> None:
    made, said = make_tokens(), []
    first = probe(*made, heads="linear", out=tmp_path, seeds=1, **QUICK)
    others = [f"{name}[features=mean]" for name in ("ridge", "knn", "centroid")]
    labels = ["linear", "logreg[features=mean]", "logreg[features=tfmean]", *others]
    assert [result.label for result in first] == labels
    # Another protocol trains again; what is solved does not change.
    again = probe(*made, heads="linear", out=tmp_path, seeds=1, preset="fast", say=said.append, **QUICK)
    assert any("5 of 5 solved heads are in" in line for line in said)
    assert [result.line for result in again[1:]] == [result.line for result in first[1:]]
    assert len(read_results([tmp_path])) == 7


@pytest.mark.slow
def test_references_read_cls_where_linear_does_and_every_fold_and_layer_has_them(
    make_tokens: Make, tmp_path: Path
) -> None:
    made = make_tokens(has_cls=True, single=True, folds=2, layers=(1, 2))
    results = probe(*made, heads="linear", out=tmp_path, folds=True, layers=[1, 2], seeds=1, **QUICK)
    solved = [result for result in results if result["head"] == "logreg"]
    assert len(solved) == 3 * 2 * 2
    assert {result["options"]["features"] for result in solved} == {"mean", "cls", "tfmean"}
    assert {(result["fold"], result["layer"]) for result in solved} == {
        (fold, layer) for fold in "12" for layer in (1, 2)
    }
    assert np.mean([result.value for result in solved]) > 0.5  # a third by chance


def test_tfmean_that_is_too_large_is_left_out_and_said(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featcache.heads.solved.solve.MOST", 1000)
    monkeypatch.setattr("featcache.heads.solved.solve.COMPARED", 10)
    said: list[str] = []
    results = probe(*make_tokens(), heads="knn", out=tmp_path, say=said.append)
    assert [result["head"] for result in results] == ["knn", "logreg", "ridge", "centroid"]
    assert any("not solved on tfmean" in line for line in said)
    monkeypatch.setattr("featcache.heads.solved.solve.free_memory", lambda device: 1000)
    with pytest.raises(InputError, match="GB of free memory; choose smaller features"):
        probe(*make_tokens(name="other"), heads="knn", out=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logreg:features=max", "features=max: wanted one of mean, mean.sd, mean.max, tfmean"),
        ("knn:features=cls", "this encoder has no cls"),
        ("ridge:alpha=3", "cannot be solved with alpha: its one option is features"),
    ],
)
def test_what_cannot_be_solved_is_said_in_a_line(
    make_tokens: Make, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        probe(*make_tokens(), heads=name, out=tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_the_command_prints_solved_heads_and_can_leave_them_out(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    words = ["probe", str(cache), "--manifest", str(manifest), "--head", "knn", "--out", str(tmp_path)]
    done = CliRunner().invoke(featcache, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "logreg[features=tfmean]" in done.output
    assert "solved" in done.output
    done = CliRunner().invoke(featcache, [*words, "--no-solved", "--dry-run"], catch_exceptions=False)
    assert 'solved, not trained: knn:features="mean"' in done.output


@pytest.mark.slow
def test_trained_linear_heads_reach_what_is_solved_on_the_mean_token(tmp_path: Path) -> None:
    """Labels lie in quiet channels, as in log-mel tokens: a head without norm has too few steps for them."""
    random, dim, classes = np.random.default_rng(0), 24, 6
    spread = np.geomspace(2, 0.02, dim)
    directions = random.standard_normal((classes, dim)) * np.geomspace(0.3, 1, dim)
    layout = CacheLayout(
        fingerprint={"encoder": "fake"}, layers=(1,), num_tokens=4, dim=dim, grid=(1, 4), has_cls=False
    )
    lines = ["path,labels,id,split"]
    with CacheWriter.create_or_open(tmp_path / "quiet.zarr", layout) as writer:
        for index in range(300):
            label = index % classes
            own = (random.standard_normal((4, dim)) * 1.5 + directions[label]) * spread
            writer.add(str(index), index.to_bytes(16, "big"), {1: torch.from_numpy(own).float()}, None, 4)
            lines.append(
                f"{index}.wav,label{label},{index},{('train', 'valid', 'test')[index // classes % 3]}"
            )
    (tmp_path / "quiet.csv").write_text("\n".join(lines) + "\n")
    made, heads = (tmp_path / "quiet.zarr", tmp_path / "quiet.csv"), ["linear", "linearc", "logreg"]
    results = probe(*made, heads=heads, out=tmp_path / "out", seeds=3, solved=False)
    linear, both, solved = (
        np.mean([result.value for result in results if result["head"] == head]) for head in heads
    )
    assert solved > 0.9
    assert linear > solved - 0.05
    assert both > solved - 0.08  # 0.2 below with the rate and the norm of other heads on tokens
