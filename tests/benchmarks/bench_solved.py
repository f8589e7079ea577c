"""How long does a path of logistic regressions take, and is it scikit-learn's?

    python tests/benchmarks/bench_solved.py            # small: 2,000 clips of 64
    python tests/benchmarks/bench_solved.py --full     # 20,000 clips of 768; 10 classes, and 200 multi-label

Features are seeded: correlated, with a spectrum that falls as encoders' does. Both solve C of 1e-4 to 1e4;
scikit-learn with ``warm_start`` from strong to weak penalties and its own tolerance (1e-4, at most 100
iterations), for multi-label one class after another. With --full and 200 classes scikit-learn solves the
first four classes, and its time is scaled up (marked ~).
"""

import argparse
import time
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from featcache.heads.report.metrics import mean_average_precision, top1
from featcache.heads.solved.logistic import fit_logistic
from featcache.heads.solved.registry import SOLVED

STRENGTHS = SOLVED["logreg"].strengths
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="20,000 clips of 768")
    full = parser.parse_args().full
    n, D = (20_000, 768) if full else (2_000, 64)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {n} clips of {D}\n")
    print("| task | classes | featcache s | scikit-learn s | best score | scikit-learn |")
    print("|---|---|---|---|---|---|")
    for kind, classes in (("single-label", 10), ("multi-label", 200 if full else 20)):
        row(kind, n, D, classes, solve=4 if full else classes)


def row(kind: str, n: int, D: int, classes: int, solve: int) -> None:
    """One line: time and best score on held-out clips; ``solve``: classes that scikit-learn solves."""
    features, labels = made(kind, n + n // 4, D, classes)
    train, test = slice(n), slice(n, None)
    began = time.perf_counter()
    path = fit_logistic(torch.from_numpy(features[train]), torch.from_numpy(labels[train]), kind, STRENGTHS)
    ours = time.perf_counter() - began
    logits = path(torch.from_numpy(features[test])).numpy()
    began = time.perf_counter()
    single = kind == "single-label"
    shown = classes if single else solve
    theirs = sklearn_path(features[train], labels[train], features[test], single, shown)
    seconds = (time.perf_counter() - began) * classes / shown
    metric = top1 if single else mean_average_precision
    best = [max(metric(labels[test][:, :shown], own[:, :shown]) for own in each) for each in (logits, theirs)]
    mark = "~" if shown < classes else ""
    scores = " | ".join(f"{100 * value:.2f}" for value in best)
    print(f"| {kind} | {classes} | {ours:.1f} | {mark}{seconds:.1f} | {scores} |")


def made(kind: str, n: int, D: int, classes: int) -> tuple[Floats, NDArray[np.uint8]]:
    """Features (n, D) and labels (n, C) that can be found in them, not without error."""
    random = np.random.default_rng(0)
    falling = np.arange(1, D + 1) ** -0.7
    labels = (
        np.eye(classes, dtype=np.uint8)[random.integers(0, classes, n)]
        if kind == "single-label"
        else (random.random((n, classes)) < 0.03).astype(np.uint8)
    )
    strength = 0.12 if kind == "single-label" else 0.3  # neither hopeless nor without error
    means = strength * random.standard_normal((classes, D)) * falling
    inner = random.standard_normal((n, D)) * falling + labels @ means
    return inner @ random.standard_normal((D, D)) + 1, labels


def sklearn_path(
    train: Floats, labels: NDArray[np.uint8], test: Floats, single: bool, solve: int
) -> list[Floats]:
    """Logits of the test clips for each C."""
    scaler = StandardScaler().fit(train)
    inputs, asked = scaler.transform(train), scaler.transform(test)
    targets = [labels.argmax(1)] if single else [labels[:, index] for index in range(solve)]
    columns = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weak penalties do not converge in 100 iterations
        for target in targets:
            model, path = LogisticRegression(warm_start=True), []
            for strength in STRENGTHS:
                path.append(model.set_params(C=strength).fit(inputs, target).decision_function(asked))
            columns.append(path)
    return [
        columns[0][number] if single else np.stack([own[number] for own in columns], axis=1)
        for number in range(len(STRENGTHS))
    ]


if __name__ == "__main__":
    main()
