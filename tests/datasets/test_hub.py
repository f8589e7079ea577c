"""Parquet as the Hub has it: audio read from where it lies, equal to the same audio as files."""

# ruff: noqa: E501  (rows of tables)

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.audio.load import duration, load_clip
from featcache.cache import TokenCache
from featcache.datasets.prepare import prepare
from featcache.errors import AudioError, InputError, MissingError
from featcache.extraction.extract import extract
from featcache.manifest import read_manifest, write_manifest
from featcache.manifest.digests import file_digests
from featcache.parquet import is_embedded, read_rows

from .conftest import sound

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Rows = Callable[..., list[str]]
Write = Callable[..., Path]
AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def audio(*contents: bytes | None) -> Any:
    return pyarrow.array([{"bytes": data, "path": "a.wav"} for data in contents], AUDIO)


def names(**classes: Any) -> dict[bytes, bytes]:
    """What the Hub writes of columns of classes, beside a rate that the bytes do not have."""
    told = {"audio": {"sampling_rate": 32_000, "_type": "Audio"}, **classes}
    return {b"huggingface": json.dumps({"info": {"features": told}}).encode()}


@pytest.fixture
def shard(tmp_path: Path) -> Write:
    """A function that writes a shard below the root."""

    def write(
        name: str, columns: Mapping[str, Any], metadata: dict[bytes, bytes] | None = None, group: int = 2
    ) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(
            pyarrow.table(dict(columns)).replace_schema_metadata(metadata), path, row_group_size=group
        )
        return tmp_path / "data"

    return write


def esc50(shard: Write, *contents: bytes) -> Path:
    count = range(1, len(contents) + 1)
    return shard(
        "data/train-00000-of-00001.parquet",
        {
            "filename": [f"{n}-{n}-A-0.wav" for n in count], "fold": list(count), "target": [0] * len(contents),
            "category": ["dog"] * len(contents), "esc10": [n % 2 == 1 for n in count], "src_file": list(count),
            "audio": audio(*contents),
        },
    )  # fmt: skip


def test_esc50_and_its_ten_classes_are_read_of_one_shard(shard: Write, rows: Rows) -> None:
    root = esc50(shard, *(sound(1, seed) for seed in range(3)))
    shown = "data/train-00000-of-00001.parquet/{}|dog|{}-{}-A-0.wav|0||train|{}|{}"
    lines = [shown.format(number - 1, *[number] * 4) for number in (1, 2, 3)]
    assert rows(prepare("esc50", root, allow_missing=True), root) == lines
    assert rows(prepare("esc10", root, allow_missing=True), root) == lines[::2]


def test_audioset_takes_its_splits_from_folders(shard: Write, rows: Rows) -> None:
    for folder, id in (("bal_train", "--PJHxphWEs"), ("eval", "Yab_cdefghi")):
        columns = {
            "video_id": [id],
            "audio": audio(sound(1)),
            "labels": [["/m/0", "/m/1"]],
            "human_labels": [["Speech", "Male speech, man speaking"]],
        }
        root = shard(f"data/{folder}/00.parquet", columns)
    assert rows(prepare("as20k", root, allow_missing=True), root) == [
        "data/bal_train/00.parquet/0|Speech;Male speech, man speaking|--PJHxphWEs|0||train||",
        "data/eval/00.parquet/0|Speech;Male speech, man speaking|Yab_cdefghi|0||test||",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["Sequence", "List"])
def test_numbers_of_classes_come_by_their_names(shard: Write, kind: str) -> None:
    told = {
        "label": {"names": ["no", "yes", "_silence_"], "_type": "ClassLabel"},
        "many": {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": kind},
    }
    columns = {"label": [1, 2], "many": [[1, 0], []], "audio": audio(b"x", b"y")}
    root = shard("x.parquet", columns, names(**told))
    assert [*read_rows(root / "x.parquet", ["label", "many"])] == [
        {"label": "yes", "many": ["b", "a"]},
        {"label": "_silence_", "many": []},
    ]


def test_an_unknown_word_of_speech_commands_is_unknown(shard: Write) -> None:
    told = {"label": {"names": ["yes", "bird", "_silence_"], "_type": "ClassLabel"}}
    columns = {
        "file": ["yes/1.wav", "bird/2.wav", "noise.wav"],
        "label": [0, 1, 2],
        "is_unknown": [False, True, False],
        "audio": audio(*[sound(1)] * 3),
    }
    root = shard("validation-00000-of-00001.parquet", columns, names(**told))
    prepared = prepare("speechcommands-12", root, allow_missing=True)
    assert [(clip.id, clip.labels, clip.split) for clip in prepared.manifest] == [
        ("yes/1.wav", ("yes",), "valid"), ("bird/2.wav", ("_unknown_",), "valid"), ("noise.wav", ("_silence_",), "valid"),
    ]  # fmt: skip


def test_unknown_columns_are_found_by_their_usual_names_or_listed(shard: Write) -> None:
    root = shard(
        "train-00000-of-00002.parquet", {"sound": audio(sound(1)), "event_labels": ["dog, alarm bell"]}
    )
    prepared = prepare("idmt-desed-fl", root, allow_missing=True)
    assert [(clip.labels, clip.split) for clip in prepared.manifest] == [(("dog", "alarm bell"), "train")]
    assert prepared.problems[0].startswith("1 of 2 shards of")
    shard("train-00001-of-00002.parquet", {"sound": audio(sound(1)), "truth": ["dog"]})
    with pytest.raises(
        InputError, match=r"no column of labels that is known \(labels, label.*found sound, truth"
    ):
        prepare("idmt-desed-fl", root, allow_missing=True)


def test_a_hub_set_without_the_columns_of_its_card_lists_those_found(shard: Write) -> None:
    root = shard("data/train.parquet", {"audio": audio(sound(1)), "label": [3]})
    with pytest.raises(
        InputError, match=r"no column 'category' or 'filename'.*found the columns audio, label"
    ):
        prepare("esc50", root)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_row_decodes_as_the_same_file_does_at_its_own_rate(shard: Write, tmp_path: Path, kind: str) -> None:
    data = sound(2, 1, kind)
    root = shard("x.parquet", {"audio": audio(b"", data, data)}, names())
    (tmp_path / "x").write_bytes(data)
    row = root / "x.parquet" / "1"
    assert duration(row) == duration(tmp_path / "x") == pytest.approx(2, abs=0.1)
    for start, end in ((0.0, None), (0.5, 1.25)):
        inside = load_clip(row, sample_rate=16_000, start=start, end=end).waveform
        assert torch.equal(
            inside, load_clip(tmp_path / "x", sample_rate=16_000, start=start, end=end).waveform
        )
    digests = file_digests([row, root / "x.parquet" / "2", tmp_path / "x"])
    assert len(set(digests.values())) == 1
    assert file_digests([row]) == {row: digests[row]}  # remembered


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"x.parquet/0: holds no bytes of audio"),
        (sound(1)[:5_000], r"x.parquet/0: was cut off"),
        (b"no audio", r"x.parquet/0: cannot be read as audio"),
    ],
)
def test_a_bad_row_is_an_error_of_that_clip(shard: Write, data: bytes | None, message: str) -> None:
    row = shard("x.parquet", {"audio": audio(data)}) / "x.parquet" / "0"
    with pytest.raises(AudioError, match=message):
        load_clip(row, sample_rate=16_000)
    with pytest.raises(AudioError, match=r"the file has 1 rows"):
        load_clip(row.parent / "1", sample_rate=16_000)


def test_a_file_that_is_no_parquet_or_has_no_audio_is_refused(shard: Write) -> None:
    root = shard("x.parquet", {"text": ["a"]})
    with pytest.raises(InputError, match=r"has no audio, a column of bytes and path; found the columns text"):
        load_clip(root / "x.parquet" / "0", sample_rate=16_000)
    (root / "y.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"y.parquet cannot be read as parquet"):
        prepare("esc50", root)


def test_rows_are_extracted_as_files_are_and_found_by_their_content(shard: Write, tmp_path: Path) -> None:
    contents = [sound(1, seed) for seed in range(5)]
    root = esc50(shard, *contents)
    manifest = prepare("esc50", root, allow_missing=True).manifest
    write_manifest(tmp_path / "esc.csv", manifest.clips)
    assert read_manifest(tmp_path / "esc.csv").clips == manifest.clips
    done = extract(tmp_path / "esc.csv", out=tmp_path / "a.zarr", clip_seconds=1)
    assert (done.encoded, done.failed) == (5, {})
    lines = ["path,labels,id"]
    for number, data in enumerate(contents, 1):
        (tmp_path / f"{number}.wav").write_bytes(data)
        lines.append(f"{number}.wav,dog,{number}-{number}-A-0.wav")
    (tmp_path / "files.csv").write_text("\n".join(lines) + "\n")
    again = extract(
        tmp_path / "files.csv", out=tmp_path / "b.zarr", clip_seconds=1, reuse=tmp_path / "a.zarr"
    )
    assert (again.encoded, again.reused) == (0, 5)
    fresh = extract(tmp_path / "files.csv", out=tmp_path / "c.zarr", clip_seconds=1)
    assert fresh.encoded == 5
    from featcache import TokenCache

    inside, files = (TokenCache.open(tmp_path / name).tokens(range(5)) for name in ("a.zarr", "c.zarr"))
    assert np.array_equal(inside, files)


def test_only_a_number_below_a_parquet_file_is_a_row() -> None:
    assert not is_embedded(Path("x.parquet/a.wav"))


BIRDS = {"id2label": {"0": "gcrfin", "1": "amered", "2": "reblei"}}


def birdset(root: Path) -> None:
    """UHH in miniature: a class without train recordings, a piece without a call, lists as lists and as text."""
    folder = root / "UHH"
    (folder / "extracted").mkdir(parents=True)
    for name, seconds in (
        ("XC1", 12),
        ("XC2", 3),
        ("UHH_001_S01_20161121_150000_000_005", 5),
        ("UHH_001_S01_20161121_150000_005_010", 5),
    ):
        (folder / "extracted" / f"{name}.ogg").write_bytes(sound(seconds, kind="OGG"))
    (root / "UHH.json").write_text(json.dumps(BIRDS))
    tables = {
        "train": {
            "filepath": ["a/XC1.ogg", "XC2.ogg"], "ebird_code": ["gcrfin", "amered"],
            "ebird_code_multilabel": ["['gcrfin', 'amered']", "['amered']"],
            "detected_events": ["[[1.0, 2.0], [6.0, 7.0], [11.0, 12.0], [3.0, 4.0]]", "[]"],
            "event_cluster": ["[0, 0, 0, -1]", "[]"], "length": [12, 3],
        },
        "test_5s": {
            "filepath": ["UHH_001_S01_20161121_150000_000_005.ogg", "UHH_001_S01_20161121_150000_005_010.ogg"],
            "ebird_code_multilabel": pyarrow.array([["reblei"], []], pyarrow.list_(pyarrow.string())),
        },
        "test": {
            "filepath": ["UHH_001_S01_20161121_150000.ogg"], "ebird_code": ["reblei"], "start_time": [3.5], "end_time": [5.25],
        },
    }  # fmt: skip
    for part, columns in tables.items():
        parquet.write_table(pyarrow.table(columns), folder / f"UHH_metadata_{part}.parquet")


def test_birdset_gives_windows_around_events_and_pieces_of_soundscapes(tmp_path: Path, rows: Rows) -> None:
    birdset(tmp_path)
    prepared = prepare("birdset-uhh", tmp_path, allow_missing=True)
    scape = "UHH_001_S01_20161121_150000"
    assert rows(prepared, tmp_path) == [
        "UHH/extracted/XC1.ogg|gcrfin;amered|XC1@0-5|0|5|train||XC1",
        "UHH/extracted/XC1.ogg|gcrfin;amered|XC1@4-9|4|9|train||XC1",
        "UHH/extracted/XC1.ogg|gcrfin;amered|XC1@7-12|7|12|train||XC1",
        "UHH/extracted/XC2.ogg|amered|XC2@0-3|0|3|train||XC2",
        f"UHH/extracted/{scape}_000_005.ogg|reblei|{scape}_000_005|0||test||{scape}",
        f"UHH/extracted/{scape}_005_010.ogg||{scape}_005_010|0||test||{scape}",
    ]
    assert prepared.classes == ("gcrfin", "amered", "reblei")  # reblei has no train recording
    assert [(event.id, event.start, event.end, event.label) for event in prepared.events] == [
        (f"{scape}_000_005", 3.5, 5.0, "reblei"),
        (f"{scape}_005_010", 0.0, 0.25, "reblei"),
    ]
    assert prepared.problems == (
        "3,626 files of train were published, 2 are listed",
        "36,637 files of test were published, 2 are listed",
    )


def test_birdset_without_its_list_of_classes_or_with_a_bad_archive_says_so(tmp_path: Path) -> None:
    birdset(tmp_path)
    (tmp_path / "UHH.json").unlink()
    prepared = prepare("birdset-uhh", tmp_path, allow_missing=True)
    assert "classes are in alphabetical order, and no label was checked" in prepared.manifest.notes[0]
    (tmp_path / "UHH.json").write_text('{"id2label": {"0": "gcrfin"}}')
    with pytest.raises(InputError, match=r"label 'amered', which is none of its 1 classes"):
        prepare("birdset-uhh", tmp_path, allow_missing=True)
    (tmp_path / "UHH.json").write_text("[]")
    with pytest.raises(InputError, match=r"is no list of classes with 'id2label'"):
        prepare("birdset-uhh", tmp_path, allow_missing=True)
    for path in (tmp_path / "UHH" / "extracted").iterdir():
        path.unlink()
    (tmp_path / "UHH.json").unlink()
    (tmp_path / "UHH" / "UHH_train_shard_0001.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"UHH_train_shard_0001.tar.gz cannot be read as a tar archive"):
        prepare("birdset-uhh", tmp_path, allow_missing=True)


def pack(folder: Path, names: Mapping[str, list[str]]) -> None:
    """Move files of audio into archives, in this order, in folders of their own."""
    import tarfile

    for archive, members in names.items():
        with tarfile.open(folder / archive, "w:gz") as tar:
            for name in members:
                tar.add(folder / "extracted" / name, f"some/folder/{name}")
    for path in (folder / "extracted").iterdir():
        path.unlink()


def test_birdset_is_read_from_its_archives_to_the_same_tokens(tmp_path: Path) -> None:
    birdset(tmp_path)
    plain = prepare("birdset-uhh", tmp_path, allow_missing=True)
    settings: dict[str, Any] = {"encoder": "logmel", "clip_seconds": 1, "device": "cpu"}
    extract(plain.manifest, out=tmp_path / "files.zarr", **settings)
    scape = "UHH_001_S01_20161121_150000"
    pack(
        tmp_path / "UHH",
        {
            "UHH_train_shard_0001.tar.gz": ["XC2.ogg", "XC1.ogg"],
            "UHH_test5s_shard_0001.tar.gz": [f"{scape}_005_010.ogg", f"{scape}_000_005.ogg"],
        },
    )
    packed = prepare("birdset-uhh", tmp_path, allow_missing=True)
    assert [clip.id for clip in packed.manifest] == [  # as the archives have them
        "XC2@0-3", "XC1@0-5", "XC1@4-9", "XC1@7-12", f"{scape}_005_010", f"{scape}_000_005",
    ]  # fmt: skip
    assert {clip.path.parent.name for clip in packed.manifest} == {
        "UHH_train_shard_0001.tar.gz", "UHH_test5s_shard_0001.tar.gz",
    }  # fmt: skip
    bare = {clip.id: (clip.labels, clip.start, clip.end, clip.split, clip.group) for clip in plain.manifest}
    assert {c.id: (c.labels, c.start, c.end, c.split, c.group) for c in packed.manifest} == bare
    assert set(packed.events) == set(plain.events)
    assert packed.problems == plain.problems
    done = extract(packed.manifest, out=tmp_path / "files.zarr", **settings)  # the same audio: all is there
    assert (done.present, done.encoded, done.canaries) == (6, 0, 3)
    extract(packed.manifest, out=tmp_path / "packed.zarr", **settings)
    ours, theirs = TokenCache.open(tmp_path / "packed.zarr"), TokenCache.open(tmp_path / "files.zarr")
    for name in bare:
        assert torch.equal(ours.tokens([ours.ids.index(name)]), theirs.tokens([theirs.ids.index(name)]))


def test_members_are_read_in_any_order_and_bad_ones_are_errors_of_their_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip
    import tarfile

    from featcache import tarball

    (tmp_path / "extracted").mkdir()
    names = [f"{number}.wav" for number in range(8)]
    for number, name in enumerate(names):
        (tmp_path / "extracted" / name).write_bytes(sound(0.1, number))
    contents = {name: (tmp_path / "extracted" / name).read_bytes() for name in names}
    pack(tmp_path, {"a.tar.gz": names})
    begun, real = [], tarfile.open
    monkeypatch.setattr(tarball.tarfile, "open", lambda *words: begun.append(1) or real(*words))
    for name in names:
        assert tarball.member_bytes(tmp_path / "a.tar.gz" / name) == contents[name]
    assert len(begun) == 2  # its list, and its contents
    monkeypatch.setattr(tarball, "KEPT_BYTES", 2 * len(contents["0.wav"]))
    for name in ("3.wav", "7.wav", "6.wav", "0.wav"):
        assert tarball.member_bytes(tmp_path / "a.tar.gz" / name) == contents[name]
    with pytest.raises(AudioError, match=r"a.tar.gz/none.wav: the archive has no such file"):
        load_clip(tmp_path / "a.tar.gz" / "none.wav", sample_rate=8_000)
    whole = (tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.tar.gz cannot be read as a tar archive"):
        tarball.member_names(tmp_path / "cut.tar.gz")
    with pytest.raises(AudioError, match=r"cut.tar.gz/1.wav: the archive cannot be read"):
        load_clip(tmp_path / "cut.tar.gz" / "1.wav", sample_rate=8_000)
    (tmp_path / "b.tar").write_bytes(gzip.decompress(whole))
    assert tarball.member_bytes(tmp_path / "b.tar" / "5.wav") == contents["5.wav"]
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar" / "x.wav").write_bytes(contents["0.wav"])
    assert load_clip(tmp_path / "folder.tar" / "x.wav", sample_rate=8_000).waveform.shape == (800,)


def test_without_pyarrow_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    birdset(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        InputError, match=r"parquet files need pyarrow; install it with pip install 'featcache\[parquet\]'"
    ):
        prepare("birdset-uhh", tmp_path)


def test_an_address_of_the_hub_is_read_like_a_folder(
    shard: Write, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is stood in for by a copy of what the address asks for, into a cache."""
    import shutil

    import huggingface_hub

    root, asked = esc50(shard, *(sound(1, seed) for seed in range(3))), []

    def snapshot(repo: str, *, repo_type: str, revision: str | None, allow_patterns: list[str] | None) -> str:
        asked.append((repo, repo_type, revision, allow_patterns))
        cache = tmp_path / "cache" / str(len(asked))
        for file in root.rglob("*.parquet"):
            name = file.relative_to(root).as_posix()
            if allow_patterns is None or name.startswith(allow_patterns[0].removesuffix("*")):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, cache / name)
        cache.mkdir(parents=True, exist_ok=True)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    wanted = rows(prepare("esc50", root, allow_missing=True), root)
    for address, call in (
        ("hf://datasets/ashraq/esc50", ("ashraq/esc50", "dataset", None, None)),
        ("hf:/datasets/ashraq/esc50", ("ashraq/esc50", "dataset", None, None)),  # as a path spells it
        (
            "hf://datasets/ashraq/esc50@refs%2Fconvert%2Fparquet/data",
            ("ashraq/esc50", "dataset", "refs/convert/parquet", ["data/*"]),
        ),
    ):
        found = prepare("esc50", address, allow_missing=True)
        assert asked[-1] == call
        assert rows(found, tmp_path / "cache" / str(len(asked))) == wanted
    with pytest.raises(MissingError, match="the Hub has no folder other in ashraq/esc50"):
        prepare("esc50", "hf://datasets/ashraq/esc50/other")
