"""A drawn split: stratified nearly as well as the published method does it, and no recording torn."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.heads.data.draw import draw_split
from featcache.heads.data.splits import hold_out
from featcache.manifest import Clip, Manifest, read_manifest
from featcache.manifest.review import review


def sechidis(sizes: list[Counter[str]], fraction: float, seed: int) -> set[int]:
    """Iterative stratification (Sechidis et al. 2011, algorithm 1) of groups into two parts, step by step."""
    random = np.random.default_rng(seed)
    total = sum(sizes, Counter[str]())
    desired = [{label: total[label] * share for label in total} for share in (1 - fraction, fraction)]
    waiting, held = dict(enumerate(sizes)), set()
    while waiting:
        left = sum(waiting.values(), Counter[str]())
        label = min((name for name in left if name), key=lambda name: (left[name], name), default="")
        for unit in random.permutation([unit for unit, own in waiting.items() if own[label]]).tolist():
            kept, out = desired[0][label], desired[1][label]
            side = int(out > kept) if out != kept else int(desired[1][""] > desired[0][""])
            held |= {unit} if side else set()
            for name, count in waiting.pop(unit).items():
                desired[side][name] -= count
    return held


def soundscapes(seed: int, groups: int) -> tuple[list[list[str]], list[int]]:
    """600 clips of 20 labels, rare and frequent, more alike within a recording."""
    random = np.random.default_rng(seed)
    rates = 0.8 / (1 + np.arange(20))
    own = random.random((groups, 20))
    of = random.integers(0, groups, 600).tolist()
    return [[f"l{n}" for n in range(20) if random.random() < rates[n] * own[g, n]] for g in of], of


@pytest.mark.parametrize("groups", [600, 150])
def test_labels_are_divided_nearly_as_well_as_by_iterative_stratification(groups: int) -> None:
    error: dict[str, list[float]] = {"ours": [], "published": [], "random": []}
    for seed in range(5):
        labels, of = soundscapes(seed, groups)
        total = Counter(label for own in labels for label in own)
        _, ours = hold_out(range(600), 0.1, seed, lambda n, own=labels: own[n], lambda n, own=of: own[n])
        units = sorted(set(of))
        sizes = [
            Counter(la for n in range(600) if of[n] == unit for la in (*labels[n], "")) for unit in units
        ]
        theirs = {units[number] for number in sechidis(sizes, 0.1, seed)}
        drawn = set(np.random.default_rng(seed).permutation(units)[: len(units) // 10].tolist())
        for name, held in (
            ("ours", set(ours)),
            ("published", {n for n in range(600) if of[n] in theirs}),
            ("random", {n for n in range(600) if of[n] in drawn}),
        ):
            count = Counter(label for n in held for label in labels[n])
            error[name].append(float(np.mean([abs(count[own] / total[own] - 0.1) for own in total])))
            assert name != "ours" or all(count[own] for own in total)
    means = {name: np.mean(values) for name, values in error.items()}
    assert means["ours"] < 1.3 * means["published"] < 0.5 * means["random"]


def run(*words: object) -> Result:
    return CliRunner().invoke(featcache, ["manifest", *map(str, words)])


@pytest.fixture
def plain(make_audio: Callable[..., Path], tmp_path: Path) -> Path:
    """40 clips of two labels by ten uploaders; the last is a copy of the first under another name."""
    lines = ["path,labels,uploader"]
    for number in range(40):
        make_audio(f"{number}.wav", seconds=0.02, seed=number % 39)
        lines.append(f"{number}.wav,{'ab'[number % 2]},u{number // 4}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "m.csv"


def test_the_command_draws_splits_that_tear_no_recording(plain: Path, tmp_path: Path) -> None:
    words = [plain, "--test", "0.2", "--valid", "0.2", "--group", "uploader", "--seed", "3"]
    done = run(*words, "--out", tmp_path / "out.csv", "--check")
    assert done.exit_code == 0, done.output
    assert "leaks      none" in done.stdout
    own = read_manifest(tmp_path / "out.csv")
    assert Counter(clip.split for clip in own) == {"train": 20, "valid": 8, "test": 12}  # a double in test
    parts: dict[str | None, set[str | None]] = {}
    for clip in own:
        parts.setdefault(clip.group, set()).add(clip.split)
    assert parts["u0"] == parts["u9"]  # equal audio
    assert all(len(split) == 1 for split in parts.values())
    run(*words, "--out", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_a_drawn_valid_split_is_the_one_that_a_probe_would_hold_out(plain: Path) -> None:
    own = draw_split(read_manifest(plain, group_column="uploader"), "valid", 0.1, seed=0)
    assert review(own).leaks == []
    assert sum(clip.split == "valid" for clip in own) in (4, 8)
    assert {clip.split for clip in own} == {"train", "valid"}


def test_what_cannot_be_drawn_is_said(plain: Path, tmp_path: Path) -> None:
    for words, message in (
        (["--group", "site"], r"m.csv has no column 'site'"),
        (["--valid", "1.5"], r"1.5 is not in the range"),
    ):
        done = run(plain, *words)
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr
    has = Manifest(
        (Clip(id="a", path=Path("a"), split="train"), Clip(id="b", path=Path("b"), split="valid")),
        Path("m.csv"),
    )
    with pytest.raises(InputError, match=r"m.csv has a valid split already; drop it"):
        draw_split(has, "valid", 0.5)
    with pytest.raises(InputError, match=r"too few clips \(1\) or recordings \(1\) to hold some out"):
        draw_split(has, "test", 0.5)
    assert run("esc50", tmp_path, "--group", "x").exit_code == 2
