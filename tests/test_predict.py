"""A trained head on new sound: the scores of its cache, in windows, as tables that other programs read."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from scipy.special import expit, softmax
from sklearn.metrics import f1_score

from featcache.cli.main import featcache
from featcache.errors import AudioError, InputError, MismatchError, MissingError
from featcache.extraction.extract import extract
from featcache.heads import load, load_config, probe, save
from featcache.heads.predicting import open_predictor
from featcache.heads.predicting.decide import best_thresholds, decision, probabilities
from featcache.heads.predicting.recordings import recordings, score
from featcache.heads.predicting.waveforms import predict_waveform
from featcache.heads.report.results import Result as Trained

from .benchmarks.bench_predict import measured

HEADS = ["linear", "mhca", "protobin", "attentive-layers"]


class Lab:
    """Trained heads of one label a clip and of several, and what they were trained on."""

    def __init__(self, folder: Path) -> None:
        self.folder, random = folder, np.random.default_rng(0)
        (folder / "audio").mkdir(parents=True)
        single, several = ["path,labels,split"], ["path,labels,split"]
        for index in range(16):
            time = np.arange(16_000 if index % 5 else 11_000) / 16_000  # some are shorter than a clip
            sound = np.sin(2 * np.pi * (500, 2500)[index % 2] * time) * 0.3
            sound += 0.05 * random.standard_normal(len(time))
            soundfile.write(folder / f"audio/{index}.wav", sound.astype(np.float32), 16_000)
            split = ("train", "train", "valid", "test")[index // 2 % 4]
            single.append(f"audio/{index}.wav,{('low', 'high')[index % 2]},{split}")
            several.append(f"audio/{index}.wav,{('low', 'low;high', 'rare;high')[index % 3]},{split}")
        (folder / "single.csv").write_text("\n".join(single) + "\n")
        (folder / "several.csv").write_text("\n".join(several) + "\n")
        self.cache = folder / "c.zarr"
        extract(folder / "single.csv", out=self.cache, encoder="logmel", clip_seconds=1.0)
        settings: dict[str, Any] = {
            "heads": HEADS, "seeds": 1, "solved": False, "epochs": 3, "lr": 0.01, "out": folder / "out",
        }  # fmt: skip
        self.single = {r["head"]: r for r in probe(self.cache, folder / "single.csv", **settings)}
        self.several = {r["head"]: r for r in probe(self.cache, folder / "several.csv", **settings)}

    def head(self, name: str = "protobin", *, several: bool = False) -> Path:
        return (self.several if several else self.single)[name].file("head")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, ["predict", *map(str, arguments)])


def rows(result: Result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(result.stdout.splitlines()))


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_scores_of_test_clips_are_those_of_the_probe(lab: Lab, name: str, several: bool) -> None:
    result: Trained = (lab.several if several else lab.single)[name]
    ids, logits, _ = result.scores()
    manifest = lab.folder / ("several.csv" if several else "single.csv")
    found = {
        own.id: own.logits
        for own in score(open_predictor(result.file("head")), recordings([manifest]), failed={})
    }
    np.testing.assert_allclose([found[own] for own in ids], logits, rtol=0, atol=1e-4)
    assert len(found) == 16


def test_logits_depend_on_the_sound_and_not_on_the_batch(lab: Lab) -> None:
    predictor = open_predictor(lab.head())
    manifest = recordings([lab.folder / "audio"])
    one = [own.logits for own in score(predictor, manifest, batch_size=1, failed={})]
    many = [own.logits for own in score(predictor, manifest, batch_size=16, failed={})]
    np.testing.assert_allclose(one, many, rtol=0, atol=1e-5)
    assert np.ptp(one, axis=0).max() > 0.1


def long_recording(folder: Path) -> Path:
    sounds = [soundfile.read(folder / f"audio/{index}.wav")[0] for index in (1, 2, 3, 4)]
    path = folder / "long.wav"
    soundfile.write(path, np.concatenate(sounds).astype(np.float32), 16_000)
    return path


def test_a_long_recording_is_read_in_windows_that_are_its_clips(lab: Lab) -> None:
    path = long_recording(lab.folder)
    predictor = open_predictor(lab.head())
    windows = list(score(predictor, recordings([path]), hop_seconds=0.5, batch_size=3, failed={}))
    assert [(own.start, own.end) for own in windows] == [(n / 2, n / 2 + 1) for n in range(7)]
    clips = score(predictor, recordings([lab.folder / f"audio/{n}.wav" for n in (1, 2, 3, 4)]), failed={})
    np.testing.assert_allclose(
        [own.logits for own in windows[::2]], [own.logits for own in clips], rtol=0, atol=1e-4
    )
    samples, rate = soundfile.read(path, dtype="float32")
    heard = predict_waveform(predictor, torch.from_numpy(samples), rate, 0.5)
    expected = softmax([own.logits for own in windows], axis=1)
    np.testing.assert_allclose([list(own.scores.values()) for own in heard], expected, rtol=0, atol=1e-5)


def test_a_loaded_head_predicts_by_itself(lab: Lab) -> None:
    samples, rate = soundfile.read(lab.folder / "audio/2.wav", dtype="float32")
    stereo = torch.from_numpy(np.stack([samples, samples]))
    (heard,) = load(lab.head()).predict(stereo, rate)
    assert (heard.start, heard.end) == (0.0, 1.0)
    assert list(heard.scores) == ["high", "low"]
    assert sum(heard.scores.values()) == pytest.approx(1)
    with pytest.raises(InputError, match=r"finite samples, found \(0,\)"):
        load(lab.head()).predict(torch.zeros(0), rate)
    with pytest.raises(AudioError, match="fewer than one patch"):
        load(lab.head()).predict(torch.zeros(10), rate)


def test_thresholds_are_those_of_best_f1_on_valid(lab: Lab) -> None:
    random = np.random.default_rng(3)
    labels = random.random((40, 5)) < 0.3
    labels[:, 4] = False
    logits = np.round(random.standard_normal((40, 5)) + labels, 1)  # with ties
    for found, own, truth in zip(best_thresholds(logits, labels), logits.T, labels.T, strict=True):
        if not truth.any():
            assert found is None
            continue
        tried = {value: f1_score(truth, own >= value) for value in np.unique(own)}
        assert tried[found] == max(tried.values())
        assert all(value <= found for value, f1 in tried.items() if f1 == tried[found])


def test_a_head_of_several_labels_carries_its_thresholds(lab: Lab) -> None:
    path = lab.head(several=True)
    config = load_config(path)
    chosen = config["thresholds"]
    assert len(chosen) == len(config["class_names"]) == 3
    assert load_config(lab.head())["thresholds"] is None
    least = dict(zip(config["class_names"], chosen, strict=True))
    found = rows(run(path, lab.folder / "audio"))
    logits = {
        own.file: own.logits
        for own in score(open_predictor(path), recordings([lab.folder / "audio"]), failed={})
    }
    wanted = {
        (file, label)
        for file, own in logits.items()
        for label, value in zip(config["class_names"], own, strict=True)
        if value >= (0 if least[label] is None else least[label])
    }
    assert {(row["file"], row["label"]) for row in found} == wanted
    for row in found:
        value = logits[row["file"]][config["class_names"].index(row["label"])]
        assert float(row["score"]) == pytest.approx(expit(value), abs=1e-5)


def test_what_is_reported_follows_the_options(lab: Lab) -> None:
    audio = lab.folder / "audio"
    assert len(rows(run(lab.head(), audio))) == 16  # the best class of each
    assert len(rows(run(lab.head(several=True), audio, "--top", 2))) == 32
    assert len(rows(run(lab.head(several=True), audio, "--threshold", 0))) == 48
    sure = rows(run(lab.head(several=True), audio, "--threshold", 0.6, "--top", 1))
    assert all(float(row["score"]) >= 0.6 for row in sure)
    assert probabilities(np.array([50.0, -50.0]), single=False) == pytest.approx([1, 0])
    # A threshold beyond what a probability can tell from 1 still lets the largest pass.
    assert decision(["a"], False, [80.0]).thresholds[0] < 1  # type: ignore[index]


def test_tables_hold_the_same_detections(lab: Lab, tmp_path: Path) -> None:
    import pyarrow.parquet

    path = long_recording(lab.folder)
    made = [run(lab.head(), path, lab.folder / "audio/0.wav", "--out", tmp_path / f"t{kind}",
                "--audacity", tmp_path / "au", "--raven", tmp_path / "ra", "--frames", tmp_path / "fr")
            for kind in (".csv", ".jsonl", ".parquet")]  # fmt: skip
    assert all(own.exit_code == 0 for own in made), made[-1].output
    assert "t.parquet: 5 detections in 2 recordings" in made[2].output
    table = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    packed = pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert lines == packed
    assert [row["label"] for row in table] == [row["label"] for row in lines]
    assert [float(row["start"]) for row in table] == [0, 1, 2, 3, 0]
    labels = [line.split("\t") for line in (tmp_path / "au/long.txt").read_text().splitlines()]
    assert [float(own[0]) for own in labels] == [0, 1, 2, 3]
    assert [own[2].split()[0] for own in labels] == [row["label"] for row in table[:4]]
    raven_lines = (tmp_path / "ra/long.selections.txt").read_text().splitlines()
    raven = list(csv.DictReader(raven_lines, delimiter="\t"))
    assert [float(own["End Time (s)"]) for own in raven] == [1, 2, 3, 4]
    assert {own["High Freq (Hz)"] for own in raven} == {"8000"}
    assert [own["Species"] for own in raven] == [row["label"] for row in table[:4]]
    with np.load(tmp_path / "fr/long.npz") as arrays:
        frames = dict(arrays)
    assert frames["logits"].shape == (len(frames["seconds"]), 2)
    step = np.diff(frames["seconds"][:6])
    assert step == pytest.approx(np.full(5, 0.16))
    assert frames["seconds"][[0, -1]].tolist() == pytest.approx([0, 3 + 6 * 0.16])
    assert sorted(tmp_path.iterdir()) == sorted(
        tmp_path / name for name in ("au", "ra", "fr", "t.csv", "t.jsonl", "t.parquet")
    )


def test_frames_are_the_heads_own_scores_over_time(lab: Lab) -> None:
    predictor = open_predictor(lab.head())
    (whole,) = score(predictor, recordings([lab.folder / "audio/1.wav"]), frames=True, failed={})
    (short,) = score(predictor, recordings([lab.folder / "audio/0.wav"]), frames=True, failed={})
    assert whole.frames is not None
    assert short.frames is not None
    # A second holds six whole patches of 0.16 s and the part of another.
    assert (len(short.frames), len(whole.frames)) == (5, 7)
    with pytest.raises(InputError, match="'linear' has no scores over time"):
        list(
            score(
                open_predictor(lab.head("linear")),
                recordings([lab.folder / "audio/1.wav"]),
                frames=True,
                failed={},
            )
        )


def test_files_that_cannot_be_decoded_are_named_and_the_rest_is_kept(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    soundfile.write(tmp_path / "tiny.wav", np.zeros(5, np.float32), 16_000)
    made = run(lab.head(), lab.folder / "audio", tmp_path, "--out", tmp_path / "t.csv")
    assert made.exit_code == 2
    assert "broken.wav: cannot be read as audio" in made.stderr
    assert "tiny.wav" in made.stderr
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 17
    again = run(lab.head(), lab.folder / "audio", tmp_path, "--skip-failed", "--out", tmp_path / "t.csv")
    assert again.exit_code == 0


def test_any_rate_and_number_of_channels_is_taken(lab: Lab, tmp_path: Path) -> None:
    samples, _ = soundfile.read(lab.folder / "audio/2.wav", dtype="float32")
    double = np.repeat(samples, 3)[:, None].repeat(2, axis=1)
    soundfile.write(tmp_path / "a.flac", double, 48_000)
    (row,) = rows(run(lab.head(), tmp_path / "a.flac"))
    assert (row["start"], row["end"]) == ("0", "1")


def test_another_encoder_is_refused(lab: Lab, tmp_path: Path, make_manifest: Callable[..., Path]) -> None:
    head = load(lab.head())
    config = load_config(lab.head())
    config["cache"]["fingerprint"]["settings"]["mels"] = 7
    save(head, tmp_path / "other.safetensors", config)
    with pytest.raises(MismatchError, match="trained on tokens of another encoder than logmel: settings"):
        open_predictor(tmp_path / "other.safetensors").logits([torch.zeros(16_000)])
    config["cache"]["fingerprint"]["encoder"] = "custom:Mine"
    save(head, tmp_path / "custom.safetensors", config)
    with pytest.raises(InputError, match=r"give FILE\.py:CLASS as encoder"):
        open_predictor(tmp_path / "custom.safetensors").logits([torch.zeros(16_000)])
    save(head, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match="does not say on which encoder's tokens"):
        open_predictor(tmp_path / "bare.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{head}", "nowhere"], "no file or folder at nowhere"),
        (["{head}", "{empty}"], "no audio file in"),
        (["{empty}/h.safetensors", "{audio}"], "no saved head at"),
        (["{head}", "{audio}", "--window", "2"], "longer than the 1 s that the head was trained on"),
        (["{head}", "{audio}", "--top", "0"], "top must be 1 or more, not 0 (--top)"),
        (["{head}", "{audio}", "--threshold", "1.5"], "threshold must be a probability from 0 to 1"),
        (["{head}", "{audio}", "--out", "x.xlsx"], "must end in .csv, .jsonl or .parquet (--out)"),
        (["{head}", "{audio}", "--raven", "{head}"], "cannot be a folder"),
        (["{head}", "{audio}", "{audio}/1.wav"], "is given twice"),
    ],
)
def test_bad_input_is_one_line(lab: Lab, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    places = {"head": lab.head(), "audio": lab.folder / "audio", "empty": tmp_path / "empty"}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_is_missing_is_a_missing_error() -> None:
    with pytest.raises(MissingError):
        recordings(["nowhere"])
    with pytest.raises(InputError, match="no audio to predict on"):
        recordings([])


def test_the_benchmark_sets_a_head_beside_extraction(tmp_path: Path) -> None:
    rows = measured(tmp_path, "logmel", "linear-mean", minutes=0.5, repeats=1)
    assert [row.count("|") for row in rows] == [8, 8, 8]
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 1 + 3  # a label for each window
