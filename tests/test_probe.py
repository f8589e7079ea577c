"""Stage two as a user runs it: a cache and a manifest to scores, files and clear refusals."""

import json
import platform
import re
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from featcache.cache import TokenCache
from featcache.cache.convert import convert_cache
from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.extraction.extract import extract
from featcache.heads import HEADS, load
from featcache.heads.data.batch import Batch
from featcache.heads.data.loader import Learner, epoch_order, num_batches, own_order, read_ahead, train_steps
from featcache.heads.data.splits import hold_out
from featcache.heads.data.tasks import Part, Sealed
from featcache.heads.probing.experiment import open_experiment
from featcache.heads.probing.probe import probe
from featcache.heads.report.metrics import all_metrics
from featcache.heads.report.results import Result as Line
from featcache.heads.report.results import read_results
from featcache.heads.report.summary import cells
from featcache.heads.training.trial import Trial
from featcache.scratch import Scratch, keep_freed_memory

Make = Callable[..., tuple[Path, Path]]
CPU = torch.device("cpu")
QUICK = {"epochs": 3, "batch_size": 16, "seeds": 1, "solved": False}


def run(*words: object) -> Result:
    return CliRunner().invoke(featcache, ["probe", "--no-solved", *map(str, words)], catch_exceptions=False)


def test_the_command_prints_scores_and_leaves_results_and_heads(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    out = tmp_path / "out"
    done = run(cache, "--manifest", manifest, "--head", "linear", "--head", "protobin:per_class=4",
               "--epochs", 3, "--batch-size", 16, "--seeds", 1, "--no-solved", "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "protobin[per_class=4]" in done.output
    results = read_results([out])
    assert [result["head"] for result in results] == ["linear", "protobin"]
    for result in results:
        assert result["cache"]["fingerprint"] == {"encoder": "fake", "seed": 0, "layers": [2]}
        assert set(result["per_class"]) == {"label0", "label1", "label2"}
        assert 0 < result["test"]["mAP"] <= 1
        assert result["clips"] == {"train": 48, "valid": 24, "test": 24}


def test_a_saved_head_gives_the_logits_that_were_scored(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens(has_cls=True)
    for result in probe(cache, manifest, heads=["linear", "protobin", "meanmax"], out=tmp_path, **QUICK):
        head = load(result.file("head"))
        ids, logits, targets = result.scores()
        store = TokenCache.open(cache)
        rows = store.find(ids)
        tokens = store.tokens(rows)
        valid, vector = store.mask(rows), store.cls(rows)
        reads = HEADS[result["head"]].reads
        with torch.no_grad():
            again = head(tokens, None, valid) if reads == "tokens" else head(None, vector, None)
        np.testing.assert_allclose(again.numpy(), logits, atol=1e-5)
        assert targets.shape == logits.shape


def test_a_head_with_a_result_is_not_trained_again(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    said: list[str] = []
    first = probe(cache, manifest, heads=["linear"], out=tmp_path, **QUICK)
    second = probe(cache, manifest, heads=["linear", "linear-mean"], out=tmp_path, say=said.append, **QUICK)
    assert second[0].line == first[0].line
    assert any("1 of 2 heads" in line for line in said)
    assert len(read_results([tmp_path])) == 2


def test_the_same_command_twice_gives_the_same_numbers_bit_for_bit(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens()
    heads = ["linear:dropout=0.3", "protobin", "ep:num_queries=4"]
    one, two = (probe(*made, heads=heads, out=tmp_path / name, **QUICK) for name in ("one", "two"))
    for first, second in zip(one, two, strict=True):
        assert first["test"] == second["test"]
        assert first["valid_scores"] == second["valid_scores"]
        assert first["train_losses"] == second["train_losses"]


def test_without_valid_a_stratified_tenth_of_train_is_held_out_and_said(
    make_tokens: Make, tmp_path: Path
) -> None:
    cache, manifest = make_tokens()
    manifest.write_text(manifest.read_text().replace(",valid,", ",train,"))
    said: list[str] = []
    (result,) = probe(cache, manifest, heads=["linear"], out=tmp_path, say=said.append, **QUICK)
    assert any("no valid split" in line and "stratified tenth" in line for line in said)
    assert result["clips"]["train"] + result["clips"]["valid"] == 72


def test_clips_of_one_label_each_are_scored_by_accuracy(make_tokens: Make, tmp_path: Path) -> None:
    (result,) = probe(
        *make_tokens(single=True),
        heads=["protobin"],
        out=tmp_path,
        epochs=8,
        batch_size=16,
        seeds=1,
        solved=False,
    )
    assert (result["metric"], result["loss"]) == ("accuracy", "cross-entropy")
    assert result.value > 0.6  # a third by chance


def test_folds_train_side_by_side_and_each_is_test_once(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens(single=True, folds=4)
    results = probe(cache, manifest, heads=["linear"], out=tmp_path, folds=True, **QUICK)
    assert [result["fold"] for result in results] == ["1", "2", "3", "4"]
    tested = [name for result in results for name in result.scores()[0]]
    assert sorted(tested) == sorted(TokenCache.open(cache).ids)


def test_a_fold_in_a_shared_pass_is_the_fold_alone(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens(single=True, folds=4)
    shared = probe(
        *made, heads=["protobin"], out=tmp_path, folds=True, device_cache="off", preset="unmute", **QUICK
    )
    experiment = open_experiment(made[0], [made[1]], device=CPU, say=lambda line: None, folds=True)
    from featcache.heads.probing.presets import UNMUTE
    from featcache.heads.training.trainer import Trainer

    training = UNMUTE.training(experiment.tasks, seed=0, epochs=3, batch_size=16)
    trial = Trial(head="protobin", task=2, layer=2, lr=0.02, weight_decay=1e-4, loss="cross-entropy")
    (alone,) = Trainer([trial], experiment.tasks, experiment.source([trial]), training).train()
    assert shared[2]["valid_scores"] == pytest.approx(alone.scores)
    assert shared[2]["train_losses"] == pytest.approx(alone.losses, rel=1e-4)


def test_one_pass_serves_several_layers_and_label_sets(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens(layers=(1, 2))
    other = tmp_path / "other.csv"
    other.write_text(manifest.read_text().replace("label2", "label0;label1"))
    results = probe(cache, [manifest, other], heads=["protobin"], layers=[1, 2], out=tmp_path, **QUICK)
    assert [(result["dataset"], result["layer"]) for result in results] == [
        ("tokens", 1), ("tokens", 2), ("other", 1), ("other", 2)
    ]  # fmt: skip
    assert [result["classes"] for result in results] == [3, 3, 2, 2]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_every_storage_dtype_can_be_probed(dtype: str, make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens(dtype=dtype)
    results = probe(*made, heads=["protobin", "linpre", "linear-mean"], out=tmp_path, **QUICK)
    plain = probe(*make_tokens(name="plain"), heads=["linear-mean"], out=tmp_path, **QUICK)
    assert all(np.isfinite(result.value) for result in results)
    # The means are made of the tokens before they are rounded.
    assert results[2]["valid_scores"] == pytest.approx(plain[0]["valid_scores"], abs=1e-6)


def test_the_order_of_an_epoch_depends_on_clips_seed_and_epoch_alone() -> None:
    keys = np.random.default_rng(0).integers(0, 256, (500, 16), dtype=np.uint8)
    order = epoch_order(keys, 3, 1)
    assert sorted(order) == list(range(500))
    shuffled = np.random.default_rng(1).permutation(500)
    assert (keys[shuffled][epoch_order(keys[shuffled], 3, 1)] == keys[order]).all()
    assert (order != epoch_order(keys, 3, 2)).any()
    assert (order != epoch_order(keys, 4, 1)).any()
    # A subset comes in the order of the whole with the others left out.
    subset = np.arange(0, 500, 3)
    assert (subset[epoch_order(keys[subset], 3, 1)] == order[np.isin(order, subset)]).all()


def test_each_seed_has_an_order_of_its_own_within_a_few_batches() -> None:
    keys = np.random.default_rng(0).integers(256, size=(100, 16), dtype=np.uint8)
    common = epoch_order(keys, 0, 1)
    one, two = (own_order(common, keys, 40, seed, 1) for seed in (1, 2))
    assert not np.array_equal(one, two)
    for start in (0, 40, 80):
        part = slice(start, start + 40)
        assert set(one[part]) == set(two[part]) == set(common[part])


@pytest.mark.parametrize("device_cache", ["on", "off"])
def test_seeds_that_share_a_read_each_see_all_clips_in_their_own_order(
    device_cache: str, make_tokens: Make
) -> None:
    made = make_tokens(clips=96)
    experiment = open_experiment(
        made[0], [made[1]], device=CPU, say=lambda line: None, device_cache=device_cache
    )  # type: ignore[arg-type]
    task = experiment.tasks[0]
    source = experiment.source([Trial(head="protobin", task=0, layer=2, lr=1, weight_decay=0, loss="bce")])
    learners = [Learner(task.train.rows, seed) for seed in (0, 1)]
    seen: list[list[int]] = [[], []]
    for step in train_steps(source, learners, 3, 0, 0):
        rows = task.train.rows[step.positions]
        assert torch.equal(step.batch.parts["tokens", 2], experiment.cache.gather(rows.tolist()))
        seen[step.learner] += rows.tolist()
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(task.train.rows.tolist())
    assert seen[0] != seen[1]


@pytest.mark.parametrize("device_cache", ["on", "off"])
def test_batches_are_the_same_from_memory_and_from_disk(device_cache: str, make_tokens: Make) -> None:
    made = make_tokens()
    experiment = open_experiment(
        made[0], [made[1]], device=CPU, say=lambda line: None, device_cache=device_cache
    )  # type: ignore[arg-type]
    task = experiment.tasks[0]
    trial = Trial(head="protobin", task=0, layer=2, lr=1, weight_decay=0, loss="bce")
    source = experiment.source([trial])
    seen = []
    for step in train_steps(source, [Learner(task.train.rows, 0)], 16, 0, 0):
        rows = task.train.rows[step.positions]
        assert torch.equal(step.batch.parts["tokens", 2], experiment.cache.gather(rows.tolist()))
        seen += rows.tolist()
    assert sorted(seen) == sorted(task.train.rows.tolist())


def test_a_command_whose_every_head_fails_has_failed(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens(clips=24)
    settings = ["--epochs", 2, "--batch-size", 16, "--seeds", 1, "--lr", 1e30]
    done = run(cache, "--manifest", manifest, "--head", "linear:norm=none", *settings, "--out", tmp_path)
    assert done.exit_code == 1
    assert "no head could be trained: the loss of each was not finite" in done.stderr.splitlines()[-1]


def test_an_error_in_the_reading_thread_reaches_the_caller(make_tokens: Make) -> None:
    made = make_tokens()
    experiment = open_experiment(made[0], [made[1]], device=CPU, say=lambda line: None, device_cache="off")
    trial = Trial(head="protobin", task=0, layer=2, lr=1, weight_decay=0, loss="bce")
    with pytest.raises(IndexError, match="10000"):
        list(read_ahead(experiment.source([trial]), [np.array([1]), np.array([10_000])]))


def test_clips_are_picked_across_batches() -> None:
    def batch(start: int, size: int) -> Batch:
        tokens = torch.arange(start, start + size).float().view(size, 1, 1)
        return Batch({("tokens", 1): tokens}, {}, torch.ones(size, 1, dtype=torch.bool), False, "float32")

    picked = Batch.pick([batch(0, 3), batch(3, 2), batch(5, 4)], np.array([8, 0, 4, 2, 3]), Scratch())
    assert picked.parts["tokens", 1].flatten().tolist() == [8, 0, 4, 2, 3]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep what is freed")
def test_memory_that_was_freed_is_used_again() -> None:
    keep_freed_memory()
    for _ in range(10):  # until there is a place for it
        torch.ones(8 * 2**20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(8 * 2**20)  # 32 MB, 8,192 pages
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 4000


def test_no_batch_is_one_clip_alone() -> None:
    assert [num_batches(clips, 8) for clips in (1, 8, 9, 10, 16, 17)] == [1, 1, 1, 2, 2, 2]


def test_holding_out_serves_each_label() -> None:
    items = [f"{label}{index}" for label in "abc" for index in range(20)] + ["d0", "d1", "e0"]
    kept, held = hold_out(items, 0.1, 0, lambda item: item[0])
    assert [sum(item[0] == label for item in held) for label in "abcde"] == [2, 2, 2, 1, 0]
    assert sorted(kept + held) == sorted(items)


def test_a_dry_run_tells_the_cost_and_trains_nothing(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    done = run(
        cache, "--manifest", manifest, "--head", "protobin", "--search", "--dry-run", "--out", tmp_path / "o"
    )
    assert done.exit_code == 0
    assert "Sobol trials 1-16" in done.output
    # 48 train and 24 valid clips of 12 tokens of 16 half floats.
    assert f"reads 72 clips once: {72 * 12 * 16 * 2 / 1000:.1f} kB" in done.output
    assert not (tmp_path / "o").exists()


def test_results_can_be_printed_as_json(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    done = run(
        cache,
        "--manifest",
        manifest,
        "--head",
        "linear",
        "--epochs",
        1,
        "--seeds",
        1,
        "--no-solved",
        "--out",
        tmp_path,
        "--json",
    )
    line = json.loads(done.stdout)
    assert line["head"] == "linear"


def edit(manifest: Path, old: str, new: str) -> None:
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))


# What is wrong: options of the command, an edit of the manifest (old, new), and what the error says.
BAD: dict[str, tuple[list[str], tuple[str, str] | None, str]] = {
    "unknown head": (["--head", "protobon"], None, "did you mean 'protobin'"),
    "head option without value": (["--head", "protobin:per_class"], None, "has no value"),
    "unknown head option": (["--head", "linear:width=3"], None, "cannot be built with"),
    "unknown preset": (["--preset", "unmut"], None, "did you mean 'unmute'"),
    "unknown loss": (["--loss", "bcee"], None, "did you mean 'bce'"),
    "loss of another task": (
        ["--loss", "cross-entropy"],
        None,
        "is for single-label tasks, and this one is multi-label; take asymmetric, asymmetric-light",
    ),
    "unknown layer": (["--layer", "7"], None, "no layer in .* named '7'"),
    "no folds": (["--folds"], None, "has no fold"),
    "unusable device": (["--device", "cuda:99"], None, "cannot be used here"),
    "single-label of several": (["--task", "single-label"], None, "wants exactly one"),
    "label only in test": (
        [],
        ("tokens/9.wav,", "tokens/9.wav,label9;"),
        "in test but not in train: 'label9'",
    ),
    "empty train": ([], (",train,", ",test,"), "no clip to train on"),
    "clips not in the cache": ([], (",tokens", ",other"), "none of the 96"),
    "some clips not in the cache": ([], (",tokens7,", ",other7,"), "1 of the 96 .*other7"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_ends_in_one_clear_line(case: str, make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    words, change, message = BAD[case]
    if change:
        edit(manifest, *change)
    head = [] if "--head" in words else ["--head", "linear"]
    done = run(cache, "--manifest", manifest, "--out", tmp_path / "out", *head, *words)
    assert done.exit_code == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert re.search(message, error), error


@pytest.mark.parametrize("loss", ["bce", "asymmetric", "focal"])
def test_a_loss_for_several_labels_is_refused_where_a_clip_has_one(
    loss: str, make_tokens: Make, tmp_path: Path
) -> None:
    cache, manifest = make_tokens(single=True)
    done = run(cache, "--manifest", manifest, "--out", tmp_path / "out", "--head", "linear", "--loss", loss)
    assert done.exit_code == 2
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert "is for multi-label tasks, and this one is single-label; take cross-entropy" in error
    words = ["--task", "multi-label", "--epochs", "1", "--seeds", "1", "--no-solved"]
    done = run(
        cache, "--manifest", manifest, "--out", tmp_path / "out", "--head", "linear", "--loss", loss, *words
    )
    assert done.exit_code == 0, done.output


def test_tokens_that_went_through_less_and_layers_that_were_left_out_are_no_seeds(
    make_tokens: Make, tmp_path: Path
) -> None:
    cache, manifest = make_tokens(layers=(1, 2))
    convert_cache(cache, tmp_path / "int4.zarr", dtype="int4")
    convert_cache(tmp_path / "int4.zarr", tmp_path / "back.zarr", dtype="float16")
    convert_cache(cache, tmp_path / "first.zarr", layers=[1])
    convert_cache(cache, tmp_path / "second.zarr", layers=[2])
    results = []
    for name in ("back", "first", "second", cache.stem):
        results += probe(
            tmp_path / f"{name}.zarr", manifest, heads="logreg", out=tmp_path / "out", solved=False
        )
    assert len({result["run"] for result in results}) == 3  # the second layer alone is what it was beside
    assert [result["last_layer"] for result in results] == [True, False, True, True]
    assert len(cells(results)) == 3


def test_equal_manifests_of_other_audio_are_no_seeds(tmp_path: Path) -> None:
    """A raw and a denoised copy of a data set have the same names, labels and splits."""
    found = []
    for seed, name in enumerate(("raw", "clean")):
        folder, random = tmp_path / name, np.random.default_rng(seed)
        folder.mkdir()
        for index in range(24):
            soundfile.write(folder / f"{index}.wav", 0.1 * random.standard_normal(16_000), 16_000)
        rows = (f"{i}.wav,{'ab'[i % 2]},{('train', 'valid', 'test')[i // 2 % 3]}\n" for i in range(24))
        (folder / "clips.csv").write_text("path,labels,split\n" + "".join(rows))
        extract(folder / "clips.csv", out=folder / "c.zarr", encoder="logmel", clip_seconds=1.0)
        found += probe(
            folder / "c.zarr", folder / "clips.csv", heads="centroid", out=folder / "out", solved=False
        )
    same, other = (result["manifest"] for result in found)
    assert same["digest"] == other["digest"]
    assert len(cells(found)) == 2


def test_a_missing_cache_and_a_cache_without_manifest_are_named(make_tokens: Make, tmp_path: Path) -> None:
    missing = run(tmp_path / "no.zarr", "--head", "linear")
    assert missing.exit_code == 2
    assert "no token cache at" in missing.stderr
    cache, _ = make_tokens()
    forgotten = run(cache, "--head", "linear")
    assert forgotten.exit_code == 2
    assert "name one (--manifest)" in forgotten.stderr


def test_failed_clips_are_left_out_and_said(make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    edit(manifest, ",tokens7,", ",broken7,")
    (cache / "failed.jsonl").write_text(json.dumps({"id": "broken7", "reason": "no audio"}) + "\n")
    said: list[str] = []
    probe(cache, manifest, heads=["linear"], out=tmp_path, say=said.append, **QUICK)
    assert any("1 clips could not be decoded" in line for line in said)


def test_a_sealed_split_has_rows_and_no_labels() -> None:
    def read() -> None:
        raise AssertionError("looked")

    sealed = Sealed(np.array([1, 2]), read)  # type: ignore[arg-type]
    assert len(sealed) == 2
    with pytest.raises(AssertionError, match="looked"):
        sealed.open()


def test_a_preset_of_a_paper_fixes_its_settings(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens()
    (result,) = probe(*made, heads=["linear"], preset="bat", epochs=2, out=tmp_path, seeds=1, solved=False)
    assert (result["loss"], result["lr"], result["weight_decay"]) == ("asymmetric-light", 1e-3, 0.05)
    assert result["training"]["select"] == "last"
    with pytest.raises(InputError, match="preset 'bat' has fixed settings"):
        probe(*made, heads=["linear"], preset="bat", search=True, out=tmp_path)


@pytest.mark.slow
@pytest.mark.shared
def test_esc10_by_its_folds_from_sound_to_accuracy(tmp_path: Path) -> None:
    """A smoke test on real sound; accuracies of full training are in docs/protocol.md."""
    from featcache.extraction.extract import extract

    root = Path(__file__).parents[2] / "shared" / "data" / "esc10"
    files = sorted(path for path in root.rglob("*") if path.suffix in (".ogg", ".wav"))
    assert len(files) == 400
    lines = [f"{path},{path.parent.name},{path.name[0]}" for path in files[::4]]
    (tmp_path / "esc10.csv").write_text("\n".join(["path,labels,fold", *lines]) + "\n")
    extract(tmp_path / "esc10.csv", out=tmp_path / "esc10.zarr", encoder="logmel")
    results = probe(
        tmp_path / "esc10.zarr",
        heads=["protobin:per_class=5"],
        folds=True,
        epochs=8,
        batch_size=16,
        seeds=1,
        solved=False,
        out=tmp_path,
    )
    assert [result["fold"] for result in results] == list("12345")
    assert np.mean([result.value for result in results]) > 0.3  # 0.1 by chance


@pytest.mark.parametrize("head", ["protobin", "protofloat", "proto", "cgp:num_prototypes=9"])
def test_the_form_of_the_match_does_not_change_a_test_score(
    make_tokens: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    """The same head on the same cache, whatever a machine chooses: scores agree to 1e-4."""
    from featcache.heads.matching import native

    cache, manifest = make_tokens(clips=120)
    (result,) = probe(cache, manifest, heads=[head], out=tmp_path, **QUICK)
    ids, _, _ = result.scores()
    store = TokenCache.open(cache)
    rows = store.find(ids)
    trained = load(result.file("head"))
    layers = HEADS[result["head"]].reads == "layers"
    tokens = store.tokens(rows).unsqueeze(1) if layers else store.gather(rows)
    scores = {}
    for form in ("native", "blocks", "reference"):
        if form == "native" and native.library() is None:
            continue
        monkeypatch.setenv("FEATCACHE_MATCH", form)
        with torch.no_grad():
            logits = trained(tokens, None, store.mask(rows)).numpy()
        scores[form] = all_metrics(logits, result_part(result), "multi-label")["mAP"]
    assert max(scores.values()) - min(scores.values()) <= 1e-4
    assert scores["blocks"] == pytest.approx(result["test"]["mAP"], abs=1e-4)


def result_part(result: Line) -> Part:
    """The test labels of a result, as they were scored."""
    ids, _, targets = result.scores()
    return Part(rows=np.arange(len(ids)), targets=targets, ids=tuple(ids))
