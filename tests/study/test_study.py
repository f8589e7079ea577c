"""A study of all the paper's data sets in miniature: one command, offline; stopped, resumed, in parts."""

# ruff: noqa: E501  (rows of tables)

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from featcache.cli.main import featcache
from featcache.errors import InputError, MissingError
from featcache.extraction.extract import extract
from featcache.heads.campaign import run as running
from featcache.heads.campaign.settings import read_study
from featcache.heads.campaign.template import template
from featcache.heads.probing.presets import PRESETS
from featcache.heads.probing.probe import probe
from featcache.heads.report.published import published
from featcache.heads.report.results import read_results

CLIPS = {"as20k": 30, "fsd50k": 19, "desed": 28, "spass": 40, "urban": 20, "esc50": 20, "sc-2": 29}
BIRDS = ("hsn", "pow", "per", "nes", "sne", "uhh", "nbp")


def command(*words: object) -> Result:
    return CliRunner().invoke(featcache, ["study", *map(str, words)])


def run(file: Path) -> list[str]:
    """The cells of a study that are done after it has run; no report is written."""
    study = read_study(file)
    outcome = running.run_study(study, study.cells(), say=lambda line: None)
    return [cell.title for cell in outcome.done]


@pytest.fixture(scope="session")
def whole(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The study after its one command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATCACHE_HOME", str(study_file.parent / "home"))
        return study_file, command(study_file, "--json", "--only", "encoder=eat", "--only", "encoder=beats")


@pytest.fixture(autouse=True)
def _no_more_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the whole study were drawn before: a fixture of the session comes first."""
    monkeypatch.setattr("featcache.heads.report.compare.figures", lambda found, ranked: [])


@pytest.fixture
def small(study_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a study of URBAN-SED alone, into folders of its own."""

    def write(*changes: tuple[str, str]) -> Path:
        home = study_file.parent
        text = (
            f'heads = ["linear", "linear-mean"]\ncaches = "{tmp_path}/caches"\n'
            f'results = "{tmp_path}/results"\n'
            '[extract]\ndevice = "cpu"\n[probe]\nseeds = 2\nepochs = 2\nsolved = false\ndevice = "cpu"\n'
            '[encoders.tiny]\nencoder = "tiny.py:Tiny"\n'
            '[datasets.urban]\nsource = "urban-sed:data/urban"\nallow_missing = true\n'
        )
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (home / "urban.toml").write_text(text)
        return home / "urban.toml"

    return write


@pytest.mark.slow
def test_one_command_gives_the_papers_table_with_its_numbers_beside_ours(whole: tuple[Path, Result]) -> None:
    file, done = whole
    assert done.exit_code == 1, done.output  # the weights of one encoder are not here
    told = json.loads(done.stdout)
    states = {(row["encoder"], row["dataset"]): row["state"] for row in told["cells"]}
    names = [*CLIPS, *BIRDS]
    assert states == {("eat", name): "done" for name in names} | {
        ("beats", name): "missing" for name in names
    }
    assert told["failed"] == {}
    assert list(told["missing"]) == ["encoder beats"]
    line = told["missing"]["encoder beats"]
    assert "get BEATs_iter3_plus_AS2M.pt (pre-trained) from github.com" in line
    assert line.endswith(f'and write weights = "{file.parent}/weights/beats.pt" under [encoders.beats]')
    assert {r["dataset"]: r["clips"] for r in told["cells"]} == CLIPS | dict.fromkeys(BIRDS, 22)  # 8 + 8 + 6
    train = {bird: _train_clips(file, bird) for bird in ("hsn", "pow")}
    assert train["pow"] == 14 < train["hsn"]  # with variants
    report = (file.parent / "results/report/report.md").read_text()
    assert "14 of 42 cells are done" in report
    assert "* encoder beats: no weights at" in report
    (protobin,) = (line for line in report.splitlines() if line.startswith("| eat† | protobin |"))
    theirs = {
        own.dataset: own.value
        for own in published("unmute")
        if (own.encoder, own.head) == ("eat", "protobin")
    }
    cells = [cell.strip() for cell in protobin.split("|")[3:-1]]
    assert dict(zip(names, cells, strict=True)) == {
        name: f"{100 * theirs[name]:.2f}†" if name in theirs else "" for name in names
    }


def _train_clips(file: Path, dataset: str) -> int:
    (own, *_) = read_results([file.parent / "results/cells/eat" / dataset])
    return int(own["clips"]["train"])


def test_a_cell_has_the_numbers_of_extract_and_probe_by_hand(
    whole: tuple[Path, Result], tmp_path: Path
) -> None:
    home = whole[0].parent
    extract(
        home / "results/manifests/sc-2.csv", out=tmp_path / "a.zarr", encoder=f"{home}/tiny.py:Tiny",
        clip_seconds=1, device="cpu",
    )  # fmt: skip
    own = probe(
        tmp_path / "a.zarr", heads=["linear", "protobin"], out=tmp_path, seeds=1, epochs=2, batch_size=8,
        solved=False, device="cpu",
    )  # fmt: skip
    theirs = read_results([home / "results/cells/eat/sc-2"])
    assert [result.value for result in own] == [result.value for result in theirs]
    for one, two in zip(own, theirs, strict=True):
        np.testing.assert_array_equal(one.scores()[1], two.scores()[1])


@pytest.mark.slow
def test_what_is_done_is_not_done_again(whole: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    file = whole[0]
    before = {path: path.stat().st_mtime_ns for path in (file.parent / "results/cells").rglob("*")}
    monkeypatch.setattr(running, "extract", None)
    monkeypatch.setattr(running, "probe", None)
    monkeypatch.setenv("FEATCACHE_HOME", str(file.parent / "home"))
    done = command(file, "--only", "encoder=eat")
    assert (done.exit_code, "small: 14 of 14 cells are done" in done.stdout) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_plan_says_what_is_there_and_writes_no_tokens(whole: tuple[Path, Result]) -> None:
    done = command(whole[0], "--dry-run")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[-1] for row in rows if row[:2] == ["eat", "as20k"]] == ["done"]
    assert [row[2:] for row in rows if row[:2] == ["eat+", "esc50"]] == [
        ["20", "0.000556", f"~{20 * 8 * 8 * 2 / 1e9:.3g}", "to", "extract"]
    ]
    assert "42 cells x 2 heads; 14 done, 0 to probe, 14 to extract (" in done.stdout
    assert "14 missing" in done.stdout
    assert not (whole[0].parent / "caches/eat+").exists()


def test_cells_are_command_lines_that_run_one_cell_each(whole: tuple[Path, Result]) -> None:
    lines = command(whole[0], "--cells").stdout.splitlines()
    assert len(lines) == 14  # those of eat are done, those of beats cannot be
    words = lines[5].split()
    assert words[3:] == ["--only", "encoder=eat+", "--only", "dataset=esc50"]
    assert [cell.title for cell in read_study(words[2]).cells(words[4::2])] == ["eat+ on esc50"]


def test_a_study_that_is_stopped_anywhere_goes_on_to_the_same_numbers(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small()
    assert run(file) == ["tiny on urban"]
    wanted = [result.value for result in read_results([tmp_path / "results/cells/tiny/urban"])]
    for name in ("caches", "results"):
        shutil.rmtree(tmp_path / name)
    for step, where in (("extract", "store"), ("probe", "train"), ("add_step", "note")):
        real = getattr(running, step)
        monkeypatch.setattr(running, step, lambda *a, _real=real, **k: (_real(*a, **k), _stop())[0])
        stopped = command(file)
        assert (stopped.exit_code, "stopped" in stopped.stderr) == (130, True), where
        monkeypatch.setattr(running, step, real)
    monkeypatch.setattr(running, "extract", None)  # each was finished before the stop
    assert run(file) == ["tiny on urban"]
    assert [result.value for result in read_results([tmp_path / "results/cells/tiny/urban"])] == wanted


def _stop() -> None:
    raise KeyboardInterrupt


def test_another_setting_is_another_cell_and_the_old_results_leave_the_report(
    small: Callable[..., Path], tmp_path: Path
) -> None:
    assert run(small()) == ["tiny on urban"]
    assert command(small(("epochs = 2", "epochs = 3"))).exit_code == 0
    assert len(read_results([tmp_path / "results/cells/tiny/urban"])) == 8
    report = (tmp_path / "results/report/report.md").read_text()
    assert report.count("| tiny | linear |") == 1
    assert not re.search(r"epochs \d", report)


def test_other_weights_under_a_name_are_seen(
    small: Callable[..., Path], study_file: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "w.pt"
    weights.write_bytes(b"1")
    file = small(("[datasets", f'weights = "{weights}"\n[datasets'))
    assert run(file) == ["tiny on urban"]
    assert "1 done" in command(file, "--dry-run").stdout
    shutil.rmtree(tmp_path / "results/cells/tiny/urban/heads")  # nothing is asked of what was trained
    (tmp_path / "results/cells/tiny/urban/results.jsonl").unlink()
    assert "1 to probe" in command(file, "--dry-run").stdout
    weights.write_bytes(b"22")
    assert "1 to extract" in command(file, "--dry-run").stdout


def test_one_cell_that_fails_leaves_the_others_alone(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small(
        (
            "[datasets.urban]",
            '[datasets.gone]\nsource = "esc50:data/none"\n[datasets.bad]\nsource = "bad.csv"\n'
            "[datasets.urban]",
        )
    )
    (file.parent / "noise.wav").write_bytes(b"no audio")
    (file.parent / "bad.csv").write_text("path,labels,split\nnoise.wav,a,train\n")
    done = command(file)
    assert done.exit_code == 1
    assert "urban: 1 of 3 cells are done" in done.stdout
    assert "data set gone: no folder at" in done.stderr
    assert "get it: https://github.com/karolpiczak/ESC-50" in done.stderr
    assert "tiny on bad: 1 clips could not be decoded, first noise.wav: " in done.stderr

    def crash(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(running, "probe", crash)
    done = command(small(("epochs = 2", "epochs = 1")))
    trace = tmp_path / "results/cells/tiny/urban/traceback.txt"
    assert (done.exit_code, f"RuntimeError: out of memory (see {trace})" in done.stderr) == (1, True)
    assert "in crash" in trace.read_text()


def test_weights_that_cannot_be_fetched_are_asked_for_once_and_listed(
    small: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small(
        (
            "[datasets.urban]",
            '[encoders.eat]\n[datasets.esc50]\nsource = "esc50:data/esc50"\nallow_missing = true\n[datasets.urban]',
        )
    )
    asked: list[str] = []

    def locate(weights: str) -> Path:
        asked.append(weights)
        raise MissingError("cannot be fetched (no network); download it and give its path")

    monkeypatch.setattr(running, "locate", locate)
    study = read_study(file)
    outcome = running.run_study(study, study.cells(), say=lambda line: None)
    assert [cell.title for cell in outcome.done] == ["tiny on esc50", "tiny on urban"]
    assert outcome.missing == {
        "encoder eat": "cannot be fetched (no network); download it and give its path, as "
        'weights = "PATH" under [encoders.eat]'
    }
    assert (asked, outcome.failed) == (["hf-hub:worstchan/EAT-base_epoch30_pretrain"], {})


def test_audio_may_go_once_it_is_extracted(
    small: Callable[..., Path], study_file: Path, tmp_path: Path
) -> None:
    own = (("allow_missing = true\n", ""), ("urban-sed:data/urban", f"{tmp_path}/own.csv"))
    shutil.copytree(study_file.parent / "data/urban/audio", tmp_path / "audio")
    rows = [
        f"audio/{folder}/{folder}{number}.wav,{'ab'[number % 2]},{split}"
        for folder, split, count in (("train", "train", 8), ("validate", "valid", 4), ("test", "test", 4))
        for number in range(count)
    ]
    (tmp_path / "own.csv").write_text("\n".join(["path,labels,split", *rows]) + "\n")
    assert run(small(*own)) == ["tiny on urban"]
    shutil.rmtree(tmp_path / "audio")
    assert run(small(*own, ("epochs = 2", "epochs = 1"))) == ["tiny on urban"]


def test_slurm_gets_one_array_whose_tasks_are_cells(
    small: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = small(("[datasets.urban]", '[slurm]\ntime = "1:00"\nexclusive = true\n[datasets.urban]'))
    missing = command(file, "--launcher", "slurm")
    assert (missing.exit_code, "no sbatch on this machine" in missing.stderr) == (2, True)
    fake = tmp_path / "bin/sbatch"
    fake.parent.mkdir()
    fake.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat > {tmp_path}/script\necho Submitted batch job 7\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    monkeypatch.setattr("featcache.heads.campaign.launch.sys.executable", "echo")
    done = command(file, "--launcher", "slurm")
    assert (done.exit_code, done.stdout) == (0, "Submitted batch job 7\n")
    words = (tmp_path / "words").read_text().split()
    assert words[0] == "--array=1-1"
    assert {"--time=1:00", "--exclusive", "--job-name=urban"} <= set(words)
    task = subprocess.run(
        ["sh", tmp_path / "script"], env={"SLURM_ARRAY_TASK_ID": "1", "PATH": "/bin:/usr/bin"}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert task.stdout == f"-m featcache.cli study {file} --only encoder=tiny --only dataset=urban\n"
    fake.write_text("#!/bin/sh\necho Invalid partition >&2\nexit 1\n")
    refused = command(file, "--launcher", "slurm")
    assert (refused.exit_code, "sbatch refused: Invalid partition" in refused.stderr) == (1, True)


BAD = {
    "a key": ('heads = [', 'hads = 1\nheads = [', r"no key in .*urban.toml named 'hads'; did you mean 'heads'\?"),
    "a key of extract": ("[extract]", "[extract]\nclip_second = 1", r"urban.toml \[extract\] named 'clip_second'; did you mean 'clip_seconds'"),
    "a key of an encoder": ("encoder =", "encodr =", r"urban.toml \[encoders.tiny\] named 'encodr'"),
    "a key of a data set's probe": ("allow_missing = true", "probe = { epoch = 1 }", r"\[datasets.urban\] \[probe\] named 'epoch'; did you mean 'epochs'"),
    "a value": ("epochs = 2", "epochs = 0", r"urban.toml \[probe\]: epochs is 0; wanted a whole number, 1 or more"),
    "a flag": ("solved = false", 'solved = "no"', r"\[probe\]: solved is 'no'; wanted true or false"),
    "a preset": ("seeds = 2", 'preset = "unmut"', r"no preset named 'unmut'; did you mean 'unmute'"),
    "a head": ('"linear"', '"linaer"', r"no head named 'linaer'; did you mean 'linear'"),
    "an option of a head": ('"linear"', '"linear:nrm=batch"', r"nrm"),
    "no data set": ("urban-sed:", "urban-sd:", r"no data set in .*\[datasets.urban\] named 'urban-sd'; did you mean 'urban-sed'"),
    "no source": ('source = "urban-sed:data/urban"\n', "", r"\[datasets.urban\] has no source"),
    "no encoders": ('[encoders.tiny]\nencoder = "tiny.py:Tiny"\n', "", r"urban.toml has no encoders"),
    "a folder's name": ("[datasets.urban]", '[datasets."../urban"]', r"a name is letters, digits"),
    "no table": ("[encoders.tiny]\nencoder =", "[encoders]\ntiny =", r"\[encoders.tiny\] is 'tiny.py:Tiny'; wanted a table"),
    "shots": ("allow_missing = true", "fewshot = { seed = 1 }", r"\[datasets.urban\] \[fewshot\] has no shots"),
    "a split": ("allow_missing = true", 'splits = ["tran"]', r"no split in .* named 'tran'; did you mean 'train'"),
    "sbatch": ("[encoders.tiny]", "[slurm]\nTime = 1\n[encoders.tiny]", r"\[slurm\] Time is 1; wanted options of sbatch"),
    "no TOML": ("seeds = 2", "seeds = two", r"urban.toml is no TOML file \(.*line 7"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_study_is_refused_in_one_line(what: str, small: Callable[..., Path]) -> None:
    old, new, message = BAD[what]
    with pytest.raises(InputError, match=message) as caught:
        read_study(small((old, new)))
    assert "\n" not in str(caught.value)


def test_names_that_a_study_has_not_are_told_the_nearest(small: Callable[..., Path], tmp_path: Path) -> None:
    file = small()
    for only, message in (
        ("encoder=tinny", "did you mean 'tiny'?"),
        ("head=linear", "wanted encoder=NAME or dataset=NAME"),
    ):
        done = command(file, "--only", only)
        assert (done.exit_code, message in done.stderr) == (2, True)
    missing = command(tmp_path / "none.toml")
    assert (missing.exit_code, "'featcache study --new unmute' writes one" in missing.stderr) == (2, True)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_template_is_the_papers_table_under_its_preset(preset: str, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    assert command(file, "--new", preset).exit_code == 0
    study = read_study(file)
    assert (len(study.encoders), len(study.datasets), len(study.heads)) == (9, 14, 11)
    assert study.probe["preset"] == preset
    assert study.probe["search"] == (PRESETS[preset].sobol > 0)
    theirs = published("unmute")
    assert {own.dataset for own in theirs} <= {own.name for own in study.datasets}
    assert {own.encoder for own in theirs} <= {own.name for own in study.encoders}
    assert {own.head for own in theirs} <= set(study.heads)
    again = command(file, "--new", preset)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    assert file.read_text() == template(preset)


def test_a_preset_that_is_none_has_no_template(tmp_path: Path) -> None:
    done = command(tmp_path / "a.toml", "--new", "unmut")
    assert (done.exit_code, "did you mean 'unmute'" in done.stderr) == (2, True)
