"""Splits that keep recordings whole, few-shot draws, and what cannot be judged."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.extraction.extract import extract
from featcache.heads.data.groups import groups_of
from featcache.heads.data.shots import draw_shots
from featcache.heads.data.splits import hold_out
from featcache.heads.data.tasks import Question, Shots, questions
from featcache.heads.probing.probe import probe
from featcache.heads.report.compare import compare
from featcache.heads.report.curves import draw_curves as picture
from featcache.heads.report.summary import cells
from featcache.manifest import Clip, Manifest, read_manifest, write_manifest

Make = Callable[..., tuple[Path, Path]]
Say = Callable[[str], None]
QUICK = {"epochs": 2, "batch_size": 16, "seeds": 1, "solved": False}


def ask(rows: list[Clip], say: Say = print, **options: object) -> list[Question]:
    """The questions of these clips; each has audio of its own unless ``keys`` says otherwise."""
    joined = [(clip, number) for number, clip in enumerate(rows)]
    return questions(Manifest(tuple(rows), Path("m.csv")), joined, name="m", say=say, **options)  # type: ignore[arg-type]


def clip(name: str, label: str = "", file: str = "", **more: str) -> Clip:
    labels = tuple(label.split(";")) if label else ()
    return Clip(id=name, path=Path(file or f"{name}.wav"), labels=labels, **more)  # type: ignore[arg-type]


def windows(files: int, each: int) -> list[Clip]:
    return [
        clip(f"{file}@{part}", "ab"[file % 2], f"{file}.wav") for file in range(files) for part in range(each)
    ]


def parts(question: Question) -> dict[str, set[str]]:
    task = question.task
    return {"train": set(task.train.ids), "valid": set(task.valid.ids), "test": set(question.test.open().ids)}


def test_windows_of_one_file_stay_in_one_drawn_split() -> None:
    said: list[str] = []
    (question,) = ask(windows(files=40, each=7), said.append)
    files = {part: {name.split("@")[0] for name in ids} for part, ids in parts(question).items()}
    assert sum(map(len, files.values())) == 40
    assert [len(files[part]) for part in ("train", "valid", "test")] == [28, 4, 8]
    assert any("56, of 8 of 40 recordings" in line for line in said)
    assert any("28 of the train clips (a stratified tenth, of 4 of 32 recordings" in line for line in said)


def test_the_valid_split_of_a_fold_keeps_files_whole() -> None:
    rows = windows(files=40, each=3)
    folded = [Clip(**{**vars(own), "fold": str(int(own.path.stem) // 2 % 4)}) for own in rows]
    for question in ask(folded, folds=True):
        files = [{name.split("@")[0] for name in ids} for ids in parts(question).values()]
        assert sum(map(len, files)) == 40


def test_clips_of_one_site_or_of_equal_audio_are_one_recording() -> None:
    rows = [clip("a", group="x"), clip("b", group="x"), clip("c"), clip("d"), clip("e", file="a.wav")]
    assert groups_of(rows, keys=[b"1", b"2", b"2", b"3", b"4"]) == [0, 0, 0, 1, 0]


def test_chains_of_recordings_are_those_of_a_plain_search() -> None:
    random = np.random.default_rng(0)
    files, keys, sites = random.integers(0, 60, (3, 80)).tolist()
    rows = [
        clip(str(n), file=f"{files[n]}.wav", **({"group": str(sites[n])} if n % 3 == 0 else {}))
        for n in range(80)
    ]
    found = groups_of(rows, keys)
    label = list(range(80))
    for _ in range(80):  # until nothing changes: the smallest number spreads
        for one in range(80):
            for two in range(80):
                alike = files[one] == files[two] or keys[one] == keys[two]
                if alike or (rows[one].group is not None and rows[one].group == rows[two].group):
                    label[one] = label[two] = min(label[one], label[two])
    assert [[a == b for b in found] for a in found] == [[a == b for b in label] for a in label]


def test_holding_out_one_item_groups_is_holding_out_items() -> None:
    random = np.random.default_rng(3)
    items = [tuple(np.flatnonzero(random.random(9) < 0.2).astype(str).tolist()) for _ in range(300)]
    numbers = range(300)
    alone = hold_out(numbers, 0.1, 5, lambda number: items[number])
    assert hold_out(numbers, 0.1, 5, lambda number: items[number], lambda number: number) == alone


def test_a_large_recording_is_not_held_out_where_a_smaller_one_is_nearer_to_the_share() -> None:
    items = ["big"] * 100 + ["small"] * 9 + ["tiny"]
    for seed in range(10):
        kept, held = hold_out(items, 0.1, seed, lambda item: "label", lambda item: item)
        assert set(held) <= {"small", "tiny"}
        assert len(kept) + len(held) == 110


def test_a_torn_recording_in_given_splits_is_refused_with_its_rows() -> None:
    rows = [clip(f"{n}", "ab"[n % 2], split=("train", "valid", "test")[n % 3]) for n in range(60)]
    assert len(ask(rows)) == 1
    torn = [*rows, clip("copy", "a", "0.wav", split="test"), clip("other", "b", "1.wav", split="train")]
    message = r"2 recording\(s\) lie in more than one split, as '0' in split 'train', 'copy' in split 'test';"
    with pytest.raises(InputError, match=message) as caught:
        ask(torn)
    assert caught.value.options == ("allow_leak",)
    said: list[str] = []
    assert len(ask(torn, said.append, allow_leak=True)) == 1
    assert sum("this leak is allowed" in line for line in said) == 1


def test_a_torn_recording_in_folds_is_refused() -> None:
    rows = [clip(f"{n}", "ab"[n % 2], fold=str(n // 2 % 3)) for n in range(60)]
    assert len(ask(rows, folds=True)) == 3
    with pytest.raises(
        InputError, match=r"1 recording.* in more than one fold, as '0' in fold '0', 'copy' in"
    ):
        ask([*rows, clip("copy", "a", "0.wav", fold="2")], folds=True)


def test_equal_audio_under_two_ids_is_found_by_content(make_manifest: Callable[..., Path]) -> None:
    manifest = make_manifest(16)
    sound = manifest.parent / "audio"
    (sound / "copy.wav").write_bytes((sound / "0.wav").read_bytes())  # train
    manifest.write_text(manifest.read_text() + "audio/copy.wav,hum,test\n")
    out = manifest.parent / "out"
    extract(manifest, out=manifest.parent / "c.zarr", encoder="logmel", clip_seconds=1)
    words = [
        "probe",
        manifest.parent / "c.zarr",
        "--head",
        "linear",
        "--epochs",
        1,
        "--seeds",
        1,
        "--out",
        out,
    ]
    refused = CliRunner().invoke(featcache, [str(word) for word in words])
    assert refused.exit_code == 2
    assert "'audio/0.wav' in split 'train', 'audio/copy.wav' in split 'test'" in refused.stderr
    assert "(--allow-leak)" in refused.stderr
    allowed = CliRunner().invoke(featcache, [*map(str, words), "--allow-leak", "--json"])
    assert allowed.exit_code == 0
    assert '"allow_leak": true' in allowed.stdout


def test_windowed_clips_are_drawn_by_file_from_extraction_to_result(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = ["path,labels,group"]
    for number in range(16):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * random.standard_normal(32_000), 16_000)
        lines.append(f"{number}.wav,{'ab'[number % 2]},site{number // 2 % 4}-{number % 2}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    extract(tmp_path / "m.csv", out=tmp_path / "c.zarr", encoder="logmel", clip_seconds=1,
            window_seconds=1, hop_seconds=0.5)  # fmt: skip
    said: list[str] = []
    (result,) = probe(tmp_path / "c.zarr", heads="linear", out=tmp_path, say=said.append, **QUICK)
    tested = {name.split(".")[0] for name in result.scores()[0]}
    groups = {f"{number}": f"{number // 2 % 4}-{number % 2}" for number in range(16)}
    sites = {groups[name] for name in tested}
    assert tested == {name for name, site in groups.items() if site in sites}
    assert result["protocol"]["allow_leak"] is False
    assert any("of 2 of 8 recordings" in line for line in said)


SPLITS = ("train", "valid", "test")
REFUSED: dict[str, tuple[list[Clip], dict[str, str], str]] = {
    "one class": (
        [clip(f"{n}", "a", split=SPLITS[n % 3]) for n in range(9)],
        {},
        "label 'a': nothing is to be",
    ),
    "one class of several": (
        [clip(f"{n}", "a", split=SPLITS[n % 3]) for n in range(9)],
        {"kind": "multi-label"},
        "label 'a': nothing is to be told apart",
    ),
    "no labels": ([clip(f"{n}", split=SPLITS[n % 3]) for n in range(9)], {}, "no train clip has a label"),
    "one valid clip": (
        [clip(f"{n}", "ab"[n % 2], split="valid" if n == 0 else "train") for n in range(9)],
        {},
        "1 clip in valid, and nothing can be chosen",
    ),
    "valid without labels": (
        [clip(f"{n}", "" if n % 3 == 1 else "ab"[n // 3 % 2], split=SPLITS[n % 3]) for n in range(24)],
        {},
        "no clip in valid has a label",
    ),
    "one recording": (
        [clip(f"{n}", "ab"[n % 2], "one.wav") for n in range(9)],
        {},
        r"too few clips \(9\) or recordings \(1\) to hold some out",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_judged_is_refused_in_one_line(case: str) -> None:
    rows, options, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        ask(rows, **options)
    assert "\n" not in str(caught.value)


def test_a_class_with_negatives_is_enough_for_a_multi_label_task() -> None:
    rows = [clip(f"{n}", "a" if n % 4 else "", split=SPLITS[n // 4 % 3]) for n in range(120)]
    said: list[str] = []
    assert ask(rows, said.append)[0].task.classes == ("a",)
    assert said == []


def test_few_valid_clips_and_classes_without_positives_are_said() -> None:
    rows = [clip(f"{n}", "abc"[n % 3], split=SPLITS[n // 3 % 3]) for n in range(60)]
    rows += [clip(f"{n}+", "a;d" if n else "d;e", split="train") for n in range(4)]
    said: list[str] = []
    ask(rows, said.append)
    assert any(line.startswith("m: 21 valid clips; choosing on fewer than 30") for line in said)
    assert "m: 2 of 5 classes have no clip in valid: 'd', 'e'; macro mAP leaves them out" in said
    assert "m: 2 of 5 classes have no clip in test: 'd', 'e'; macro mAP leaves them out" in said


def test_a_class_of_one_clip_trains_and_is_named() -> None:
    rows = [clip(f"{n}", "ab"[n % 2]) for n in range(100)] + [clip("lone", "c")]
    for seed in range(5):
        said: list[str] = []
        (question,) = ask(rows, said.append, seed=seed)
        assert "lone" in question.task.train.ids
        assert any(re.search("1 of 3 classes have one recording, which trains.*'c'", line) for line in said)


LABELS = [
    tuple("abcdefgh"[i] for i in np.flatnonzero(row))
    for row in np.random.default_rng(1).random((200, 8)) < 0.12
]


def test_a_smaller_draw_is_part_of_a_larger_and_the_same_beside_any_other() -> None:
    draws = draw_shots(LABELS, range(200), [1, 3, 10, 500], seed=0)
    assert set(draws[1]) < set(draws[3]) < set(draws[10]) < set(draws[500])
    assert draws[500] == list(range(200))
    assert draw_shots(LABELS, range(200), [3], seed=0)[3] == draws[3]
    assert draw_shots(LABELS, range(200), [3], seed=1)[3] != draws[3]


def test_each_class_has_its_shots_or_all_it_has() -> None:
    for count, drawn in draw_shots(LABELS, range(200), [1, 5, 25], seed=0).items():
        for label in "abcdefgh":
            every = sum(label in own for own in LABELS)
            assert sum(label in LABELS[number] for number in drawn) >= min(count, every)
    single = [("a",)] * 30 + [("b",)] * 4
    assert [len(own) for own in draw_shots(single, range(34), [1, 4, 9], seed=0).values()] == [2, 8, 13]


def test_shots_come_from_as_many_recordings_as_they_can() -> None:
    labels, groups = [("a",)] * 40, [number // 10 for number in range(40)]
    draws = draw_shots(labels, groups, [4, 8], seed=0)
    assert sorted(groups[number] for number in draws[4]) == [0, 1, 2, 3]
    assert sorted(groups[number] for number in draws[8]) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_each_number_of_shots_is_a_task_with_the_same_valid_and_test(
    make_tokens: Make, tmp_path: Path
) -> None:
    said: list[str] = []
    shots: Shots = [5, 1, 20, "all"]
    made = make_tokens(single=True)
    results = probe(
        *made, heads="linear", out=tmp_path, shots=shots, say=said.append, **{**QUICK, "seeds": 2}
    )
    assert [result["shots"] for result in results] == [1, 1, 5, 5, 20, 20, None, None]
    assert [result["clips"]["train"] for result in results[::2]] == [3, 15, 48, 48]
    assert len({result["run"] for result in results}) == 8
    assert len({tuple(result.scores()[0]) for result in results}) == 1
    assert any("3 of 3 classes have fewer than 20 train clips and give all" in line for line in said)
    found = cells(results)
    assert [cell.head.split("[")[0].split()[0] for cell in found] == ["linear"] * 4
    assert [re.search(r"(\d+-shot)?$", cell.head)[0] for cell in found] == ["1-shot", "5-shot", "20-shot", ""]  # type: ignore[index]


def test_solved_heads_are_told_apart_by_shots_and_fit_them_alone(make_tokens: Make, tmp_path: Path) -> None:
    made = make_tokens(single=True)  # 24 valid clips: too few to choose on, so "all" joins them with train
    results = probe(*made, heads="logreg", out=tmp_path, shots=[1, 5, "all"], solved=False)
    assert [(own["shots"], own["chosen"]["clips"]) for own in results] == [(1, 3), (5, 15), (None, 72)]


def test_few_shots_train_as_many_steps_as_all_clips_do(make_tokens: Make, tmp_path: Path) -> None:
    results = probe(*make_tokens(clips=800, single=True), heads="linear", out=tmp_path, shots=[2, "all"],
                    max_steps=60, seeds=1, solved=False)  # fmt: skip
    steps = []
    for result in results:
        own = result["training"]
        steps.append(own["epochs"] * own["passes"] * -(-result["clips"]["train"] // own["batch_size"]))
    assert min(steps) >= 60
    assert max(steps) <= 2 * min(steps)


def test_a_learning_curve_has_a_line_a_head_and_a_point_a_number_of_shots(
    make_tokens: Make, tmp_path: Path
) -> None:
    heads = ["linear", "linear-mean"]
    results = probe(*make_tokens(single=True), heads=heads, out=tmp_path, shots=[1, 5, "all"], **QUICK)
    (axes,) = picture(cells(results)).axes
    assert [line.get_xdata().tolist() for line in axes.get_lines()] == [[1, 5, 10]] * 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5", "all"]
    curve = [100 * result.value for result in results if result["head"] == "linear"]
    assert axes.get_lines()[0].get_ydata().tolist() == pytest.approx(curve)
    assert tmp_path / "c" / "shots.png" in compare(tmp_path, tmp_path / "c", draws=0).files


@pytest.mark.parametrize("shots", ["1,x", "0", "", "-3"])
def test_a_bad_number_of_shots_is_refused(shots: str, make_tokens: Make, tmp_path: Path) -> None:
    cache, manifest = make_tokens()
    words = [cache, "--manifest", manifest, "--head", "linear", "--out", tmp_path, "--shots", shots]
    done = CliRunner().invoke(featcache, ["probe", *map(str, words)])
    assert done.exit_code == 2
    assert "wanted whole numbers, 1 or more, or 'all' (--shots)" in done.stderr


def test_a_single_shot_in_all_is_refused() -> None:
    rows = [clip(f"{n}", "a;b" if n % 2 else "a;b;c", split=SPLITS[n % 3]) for n in range(90)]
    with pytest.raises(InputError, match="shots 1 is one clip in all"):
        ask(rows, shots=[1])


def test_the_group_is_read_written_and_part_of_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("path,labels,group\na.wav,x,north\nb.wav,y,\n")
    manifest = read_manifest(path)
    assert [own.group for own in manifest] == ["north", None]
    write_manifest(tmp_path / "copy.csv", manifest.clips)
    assert read_manifest(tmp_path / "copy.csv").clips == manifest.clips
    path.write_text("path,labels\na.wav,x\nb.wav,y\n")
    plain = read_manifest(path)
    assert plain.digest != manifest.digest
    assert plain.digest == "6bc004b68cd5de923da459889caad013"
