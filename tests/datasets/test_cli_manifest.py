"""``featcache manifest``, ``datasets`` and ``fewshot``, and ``extract NAME:ROOT``, as a user types them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from featcache.cli.main import featcache
from featcache.datasets.prepare import prepare
from featcache.datasets.table import DATASETS
from featcache.heads.report.results import read_results
from featcache.manifest import read_manifest
from featcache.manifest.events import read_events

Unpack = Callable[[Mapping[str, object]], Path]
STRONG = "filename\tonset\toffset\tevent_label\n"
DESED: dict[str, object] = {
    "metadata/train/weak.tsv": "filename\tevent_labels\na.wav\tDog,Speech\nb.wav\tCat\n",
    "metadata/validation/validation.tsv": STRONG + "c.wav\t0.25\t0.5\tDog\n",
    "metadata/eval/public.tsv": STRONG + "d.wav\t0\t1\tSpeech\ne.wav\t\t\t\n",
    "audio/train/weak/a.wav": 1,
    "audio/train/weak/b.wav": 1,
    "audio/validation/c.wav": 1,
    "audio/eval/public/d.wav": 1,
    "audio/eval/public/e.wav": 1,
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(featcache, [*map(str, arguments)])


def test_a_manifest_and_its_events_are_written_beside_each_other(unpack: Unpack, tmp_path: Path) -> None:
    out = tmp_path / "desed.csv"
    done = run("manifest", "desed", unpack(DESED), "--allow-missing", "--out", out)
    assert done.exit_code == 0, done.output
    assert [(clip.id, clip.labels, clip.split) for clip in read_manifest(out)] == [
        ("a", ("Dog", "Speech"), "train"),
        ("b", ("Cat",), "train"),
        ("c", ("Dog",), "valid"),
        ("d", ("Speech",), "test"),
        ("e", (), "test"),
    ]
    assert {id: len(own) for id, own in read_events(tmp_path / "desed.events.csv").items()} == {
        "c": 1,
        "d": 1,
    }
    assert "labels     3, of 1 to 2 clips each" in done.stdout
    assert "splits     train 2, valid 1, test 2" in done.stdout
    assert "events     2" in done.stdout
    assert "not whole: 1,578 files of train were published, 2 are listed" in done.stderr


def test_a_partial_download_writes_nothing_and_names_the_option(unpack: Unpack, tmp_path: Path) -> None:
    done = run("manifest", "desed", unpack(DESED), "--out", tmp_path / "desed.csv")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "with allow_missing (--allow-missing)" in done.stderr
    assert not (tmp_path / "desed.csv").exists()


def test_labels_are_renamed_kept_and_dropped_and_events_follow(unpack: Unpack, tmp_path: Path) -> None:
    root, first, second = unpack(DESED), tmp_path / "one.csv", tmp_path / "two.csv"
    names = tmp_path / "names.csv"
    names.write_text("label,to\nDog,pet\nCat,pet\n")
    done = run("manifest", "desed", root, "--allow-missing", "--map", names, "--out", first)
    assert done.exit_code == 0, done.output
    assert [clip.labels for clip in read_manifest(first)] == [
        ("pet", "Speech"),
        ("pet",),
        ("pet",),
        ("Speech",),
        (),
    ]
    assert {event.label for own in read_events(tmp_path / "one.events.csv").values() for event in own} == {
        "pet",
        "Speech",
    }
    done = run("manifest", first, "--drop", "Speech", "--split", "test", "--split", "train", "--out", second)
    assert done.exit_code == 0, done.output
    assert [(clip.id, clip.labels) for clip in read_manifest(second)] == [
        ("a", ("pet",)),
        ("b", ("pet",)),
        ("e", ()),
    ]
    assert not (tmp_path / "two.events.csv").exists()  # none is left
    again = run("manifest", "desed", root, "--allow-missing", "--split", "train", "--out", first)
    assert again.exit_code == 0, again.output
    assert not (tmp_path / "one.events.csv").exists()  # those of the earlier one are not taken for its own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "Dgo"], r"no label named 'Dgo'; did you mean 'Dog'?"),
        (["--drop", "Dog;Cat;Speech"], "no label is left"),
        (["--min-count", "99"], "(--min-count)"),
        (["--map", "none.csv"], "none.csv cannot be read (no such file or directory)"),
        (["--split", "tst"], "Invalid value for '--split'"),
    ],
)
def test_bad_options_are_refused_in_one_line(unpack: Unpack, options: list[str], message: str) -> None:
    done = run("manifest", "desed", unpack(DESED), "--allow-missing", *options)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_label_that_is_mapped_twice_is_refused(unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("label,to\nDog,pet\nDog,animal\n")
    done = run("manifest", "desed", unpack(DESED), "--allow-missing", "--map", tmp_path / "names.csv")
    assert (done.exit_code, "line 3: 'Dog' stands in an earlier line" in done.stderr) == (2, True)


def test_the_check_finds_copies_leaks_and_what_cannot_be_read(unpack: Unpack, tmp_path: Path) -> None:
    root = unpack(DESED)
    audio = root / "audio"
    (audio / "train/weak/b.wav").write_bytes((audio / "train/weak/a.wav").read_bytes())
    (audio / "eval/public/d.wav").write_bytes((audio / "validation/c.wav").read_bytes())
    (audio / "eval/public/e.wav").write_bytes(b"no audio")
    done = run("manifest", "desed", root, "--check")
    assert done.exit_code == 1
    assert "found      train 2 of 1,578 published files, valid 1 of 1,168" in done.stdout
    assert "twice      2: a = b; c = d" in done.stdout
    assert "leaks      1: c (split valid) = d (split test)" in done.stdout
    assert "unreadable 1:" in done.stdout
    assert "rates      8000 Hz: 4" in done.stdout
    told = json.loads(run("manifest", "desed", root, "--check", "--json").stdout)
    assert told["leaks"] == [["c (split valid)", "d (split test)"]]
    assert told["published"] == {"train": 1578, "valid": 1168, "test": 692}
    assert told["imbalance"] == 2.0
    assert told["seconds"] == [1.0, 1.0, 1.0]


def test_the_check_of_a_sound_manifest_ends_with_0(make_manifest: Callable[..., Path]) -> None:
    done = run("manifest", make_manifest(8), "--check")
    assert done.exit_code == 0, done.output
    for line in ("unreadable none", "twice      none", "leaks      none"):
        assert line in done.stdout


def test_a_group_in_two_folds_is_a_leak(tmp_path: Path, make_audio: Callable[..., Path]) -> None:
    for seed in range(2):
        make_audio(f"{seed}.wav", seed=seed)
    (tmp_path / "m.csv").write_text("path,labels,fold,group\n0.wav,x,1,site\n1.wav,x,2,site\n")
    done = run("manifest", tmp_path / "m.csv", "--check")
    assert (done.exit_code, "leaks      1: 0.wav (fold 1) = 1.wav (fold 2)" in done.stdout) == (1, True)


def test_a_data_set_is_extracted_by_name_with_its_labels_and_events(unpack: Unpack, tmp_path: Path) -> None:
    more = {
        "metadata/validation/validation.tsv": STRONG + "c.wav\t0.25\t0.5\tDog\nf.wav\t0.5\t1\tCat\n",
        "audio/validation/f.wav": 1,
    }
    root, cache = unpack(DESED | more), tmp_path / "desed.zarr"
    refused = run("extract", f"desed:{root}", "--clip-seconds", 1, "--out", cache)
    assert refused.exit_code == 2
    assert not cache.exists()
    done = run("extract", f"desed:{root}", "--clip-seconds", 1, "--out", cache, "--skip-failed")
    assert done.exit_code == 0, done.output
    assert "not whole: 1,578 files of train" in done.stderr
    assert set(read_events(cache / "clips.events.csv")) == {"c", "d", "f"}
    probed = run(
        "probe", cache, "--head", "linear", "--epochs", 1, "--no-solved", "--out", tmp_path / "results"
    )
    assert probed.exit_code == 0, probed.output
    assert {result["dataset"] for result in read_results([tmp_path / "results"])} == {"desed"}
    assert run("cache", "verify", cache).exit_code == 0


def test_windows_of_a_data_set_have_the_events_that_lie_in_them(unpack: Unpack, tmp_path: Path) -> None:
    options = ("--clip-seconds", 0.5, "--window", 0.5, "--skip-failed", "--out", tmp_path / "x.zarr")
    done = run("extract", f"desed:{unpack(DESED)}", *options)
    assert done.exit_code == 0, done.output
    windows = read_manifest(tmp_path / "x.zarr" / "windows.csv")
    assert len(windows) == 10
    whole = prepare("desed", tmp_path / "data", allow_missing=True).events
    wanted = {  # the overlap of each event with each half second, by hand
        (
            f"{event.id}@{start:g}-{start + 0.5:g}",
            max(event.start - start, 0),
            min(event.end - start, 0.5),
            event.label,
        )
        for event in whole
        for start in (0.0, 0.5)
        if event.start < start + 0.5 and event.end > start
    }  # fmt: skip
    found = read_events(tmp_path / "x.zarr" / "windows.events.csv")
    assert {(own.id, own.start, own.end, own.label) for events in found.values() for own in events} == wanted
    assert wanted
    assert set(found) <= {clip.id for clip in windows}


def test_windows_of_a_manifest_have_its_events_too(
    make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    path = make_manifest(4)
    path.with_suffix(".events.csv").write_text("id,start,end,label\naudio/1.wav,0.25,0.75,hum\n")
    done = run("extract", path, "--clip-seconds", 0.5, "--window", 0.5, "--out", tmp_path / "x.zarr")
    assert done.exit_code == 0, done.output
    found = read_events(tmp_path / "x.zarr" / "windows.events.csv")
    assert {id: (own.start, own.end) for id, (own,) in found.items()} == {
        "audio/1.wav@0-0.5": (0.25, 0.5), "audio/1.wav@0.5-1": (0.0, 0.25),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["esc50"], "no folder is named for ESC-50; give the one in which it was unpacked, as esc50:FOLDER"),
        (["esc5:data"], "no data set named 'esc5'; did you mean 'esc50'?"),
        (
            ["esc50", "hf://ashraq/esc50"],
            "hf:/ashraq/esc50 is no address of a data set; wanted hf://datasets/OWNER/NAME",
        ),
        (
            ["esc50", "hf://datasets/ashraq/esc50"],
            "hf:/datasets/ashraq/esc50 is not in the cache and cannot be fetched (",
        ),
        (["none.csv"], "no manifest at none.csv"),
        (["esc50", "none"], "no folder at none; wanted the one that ESC-50 was unpacked in"),
    ],
)
def test_a_source_that_is_not_there_is_said_in_one_line(arguments: list[str], message: str) -> None:
    done = run("manifest", *arguments)
    assert (done.exit_code, done.stderr.count("\n"), message in done.stderr) == (2, 1, True)


def test_where_nothing_can_be_written_is_said_and_folders_are_made(
    make_manifest: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_manifest(8)
    for command in (["manifest", source], ["fewshot", source, "--shots", 1]):
        done = run(*command, "--out", tmp_path)
        assert (done.exit_code, f"{tmp_path} is a folder; name a file in it (--out)" in done.stderr) == (
            2,
            True,
        )
        done = run(*command, "--out", source / "x.csv")
        assert (done.exit_code, "cannot be a folder" in done.stderr) == (2, True)
        assert run(*command, "--out", tmp_path / "new" / command[0] / "x.csv").exit_code == 0


@pytest.mark.shared
def test_the_real_esc10_is_listed_in_one_line(tmp_path: Path) -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "esc10"
    done = run("manifest", "esc10", root, "--check", "--out", tmp_path / "esc10.csv")
    assert done.exit_code == 0, done.output
    assert len(read_manifest(tmp_path / "esc10.csv")) == 400


def test_the_table_lists_every_set_and_one_in_full() -> None:
    listed = run("datasets").stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(DATASETS)
    one = run("datasets", "urban-sed").stdout
    for word in ("CC BY 4.0", "https://zenodo.org/records/1324404", "Salamon"):
        assert word in one
    told = json.loads(run("datasets", "--json").stdout)
    assert [own["name"] for own in told] == list(DATASETS)
    assert json.loads(run("datasets", "esc50", "--json").stdout)["sizes"] == {"all": 2000}
    assert "did you mean 'gtzan'" in run("datasets", "gtsan").stderr
