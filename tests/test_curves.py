"""Scores over layers and over the frequency of classes, and what a run cost: from lines to pictures."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from featcache.heads.probing.probe import probe
from featcache.heads.report.compare import compare
from featcache.heads.report.curves import by_frequency, draw_frequency, draw_layers, layered
from featcache.heads.report.summary import cells
from featcache.manifest import read_manifest

from .test_compare_rows import line

COUNTS = {f"class{number}": 2 + 3 * number for number in range(17)}


def test_layers_of_one_head_are_a_line_and_a_single_layer_is_none() -> None:
    layers = [
        line(0.1 * layer + 0.01 * seed, layer=layer, last_layer=layer == 4, head=head, seed=seed)
        for head, own in (("linear", (2, 3, 4)), ("mhca", (4,)))
        for layer in own
        for seed in range(2)
    ]
    curves = layered(cells(layers))
    assert list(curves) == ["bom"]
    assert list(curves["bom"]) == ["linear"]
    points = curves["bom"]["linear"]
    assert [(place, round(cell.mean, 3)) for place, cell in points] == [(2, 0.205), (3, 0.305), (4, 0.405)]
    (axes,) = draw_layers(curves).axes
    assert axes.get_xticks().tolist() == [2, 3, 4]
    (drawn,) = axes.lines
    np.testing.assert_allclose(drawn.get_ydata(), [20.5, 30.5, 40.5])
    assert layered(cells(layers[4:])) == {}


def of_classes(skill: float, seed: int, **more: object) -> object:
    random = np.random.default_rng(seed)
    values = {name: float(random.uniform(0, skill)) for name in COUNTS} | {"class3": None}
    return line(skill, seed=seed, per_class=values, train_per_class=COUNTS, **more)


def test_each_class_is_a_point_at_its_train_clips_and_its_mean_precision() -> None:
    lines = [of_classes(0.5, 0), of_classes(0.5, 1), of_classes(0.9, 0, head="mhca"), line(0.3, head="old")]
    clouds = by_frequency(cells(lines))
    assert list(clouds["bom"]) == ["mhca", "linear"]  # the best first; the last does not say its classes
    counts, precision = clouds["bom"]["linear"]
    known = [name for name in COUNTS if name != "class3"]  # which no test clip has
    assert counts.tolist() == [COUNTS[name] for name in known]
    pairs = [(lines[0]["per_class"][name], lines[1]["per_class"][name]) for name in known]
    np.testing.assert_allclose(precision, np.mean(pairs, axis=1))
    (axes,) = draw_frequency(clouds).axes
    rho = spearmanr(counts, precision).statistic
    assert axes.get_legend().get_texts()[1].get_text() == f"linear (ρ {rho:.2f})"
    trend = axes.lines[3].get_xydata()
    assert len(trend) == 4  # 16 classes in groups of four
    assert trend[0] == pytest.approx([np.exp(np.log(counts[:4]).mean()), 100 * precision[:4].mean()])


def test_of_many_heads_the_best_six_are_drawn_and_equal_counts_not_at_all() -> None:
    lines = [of_classes(0.1 + number / 10, number, head=f"head{number}") for number in range(8)]
    assert list(by_frequency(cells(lines))["bom"]) == [f"head{number}" for number in range(7, 1, -1)]
    even = line(0.5, per_class=dict.fromkeys("abc", 0.5), train_per_class=dict.fromkeys("abc", 4))
    assert by_frequency(cells([even])) == {}


def test_a_run_says_what_it_learned_from_and_what_it_cost(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    cache, manifest = make_tokens(layers=(1, 2), tokens=12, dim=16)
    results = probe(
        cache, manifest, heads=["linear", "mhca", "centroid"], layers=[1, 2], out=tmp_path / "out", epochs=2,
        batch_size=16, seeds=1, solved=False,
    )  # fmt: skip
    train = [clip for clip in read_manifest(manifest).clips if clip.split == "train"]
    for result in results:
        for name, count in result["train_per_class"].items():
            assert count == sum(name in clip.labels for clip in train)
    linear, mhca = (next(own for own in results if own["head"] == name) for name in ("linear", "mhca"))
    assert linear["parameters"] == 16 * 3 + 3
    assert linear["read_bytes"] == 2 * (48 + 24) * 16 * 4  # epochs, train and valid clips, float32
    assert mhca["read_bytes"] == 2 * (48 + 24) * 12 * 16 * 2  # every token, float16
    assert results[-1]["head"] == "centroid"
    assert (results[-1]["parameters"], results[-1]["read_bytes"]) == (None, None)
    done = compare(tmp_path / "out", tmp_path / "compared", draws=0)
    assert {"layers.png", "layers.svg", "classes.png"} <= {path.name for path in done.files}
