"""Manifests: what is read, what is refused, and that a digest follows the content."""

from collections.abc import Callable
from pathlib import Path

import pytest

from featcache.errors import InputError, MissingError
from featcache.manifest import Clip, Manifest, from_folders, load_manifest, read_manifest, write_manifest
from featcache.manifest.windows import window, window_manifest

Make = Callable[..., Path]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_row_becomes_a_clip_with_its_path_beside_the_file(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "m.csv", "path,labels,split\na/b.wav,dog; rain ,train\n"))
    assert manifest.clips == (
        Clip(id="a/b.wav", path=tmp_path / "a/b.wav", labels=("dog", "rain"), split="train"),
    )
    assert manifest.classes == ("dog", "rain")


def test_a_segment_is_part_of_the_default_id(tmp_path: Path) -> None:
    text = "path,labels,start,end\na.wav,x,0,2.5\na.wav,x,2.5,\n"
    ids = [clip.id for clip in read_manifest(write(tmp_path / "m.csv", text))]
    assert ids == ["a.wav@0-2.5", "a.wav@2.5-"]


def test_a_byte_order_mark_and_absolute_paths_are_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "m.csv", "\ufeffpath,labels\n/data/a.wav,x\n"))
    assert manifest.clips[0].path == Path("/data/a.wav")


def test_labels_may_be_empty_and_repeated_labels_count_once(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "m.csv", "path,labels\na.wav,\nb.wav,x;x\n"))
    assert [clip.labels for clip in manifest] == [(), ("x",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,split\na.wav,train\n", r"has no column 'labels'; wanted path,labels, found path,split"),
        ("", "found an empty file"),
        ("path,labels\n", "lists no clip"),
        ("path,labels\n,x\n", "line 2 has no path"),
        ("path,labels,start,end\na.wav,x,3,2\n", r"line 2: end 2 s is not after start 3 s"),
        ("path,labels,start,end\na.wav,x,1,1\n", r"line 2: end 1 s is not after start 1 s"),
        ("path,labels,start\na.wav,x,soon\n", r"line 2: start is 'soon'; wanted seconds, 0 or more"),
        ("path,labels,start\na.wav,x,nan\n", r"start is 'nan'; wanted seconds"),
        ("path,labels,start\na.wav,x,-1\n", r"start is '-1'; wanted seconds, 0 or more"),
        ("path,labels,split\na.wav,x,devel\n", r"line 2: unknown split 'devel'; wanted train, valid or test"),
        ("path,labels,id\na.wav,x,1\nb.wav,x,1\n", r"has the id '1' 2 times"),
        ('path,labels\na.wav,x\n"b.wav,x\nc.wav,x\n', r'line 3: a quote \("\) is opened and not closed'),
        ('path,labels\na.wav,"x\ny"\n', r"line 2: a quote .* a cell cannot go over several lines"),
        ('path,labels\n"a"b.wav,x\n', r"line 2 is no row of a CSV file .*; mend its quotes"),
        ('pa"th,"labels\na.wav,x\n', r"line 1: a quote"),
        ("path,labels\na.ogg,dog,loud\n", r"line 2 has 3 cells, the header 2; .* separate labels with ;"),
        ("path,labels,split\na.wav,x\n", r"line 2 has 2 cells, the header 3"),
        ("path;labels\na.wav;x;y\n", r"line 2 has 3 cells, the header 2"),
        ("path,labels,labels\na.wav,x,y\n", r"line 1: 2 columns could be labels \('labels', 'labels'\)"),
        ("path,Labels,labels\na.wav,x,y\n", r"rename all but one, or name one with label_column"),
        ("path,label,class\na.wav,x,y\n", r"2 columns could be labels \('label', 'class'\)"),
        ("file,filename,label\na.wav,a.wav,y\n", r"could be path .* or name one with path_column"),
        ("path,labels,id,id\na.wav,x,1,2\n", r"2 columns could be id .*; rename all but one$"),
        ("sound,labels\na.wav,x\n", r"no column 'path'; .* name those to take with path_column"),
        ("path,labels\na\0.wav,x\n", r"line 2 has a NUL character"),
        ("path,labels\na.wav,x\na.wav,y\n", r"has the id 'a.wav' 2 times"),
    ],
)
def test_a_bad_manifest_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_manifest(write(tmp_path / "m.csv", text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no manifest at .*none\.csv; wanted a CSV file"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"path,labels\n\xff\xfe\x00,x\n")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read_manifest(tmp_path / "binary.csv")
    with pytest.raises(InputError, match="with from_folders"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("header", "row", "notes"),
    [
        ("path,labels,split", "a.wav,dog;rain,valid", []),
        ("Path,LABELS, Split", "a.wav,dog;rain,valid", []),
        ("path;labels;split", 'a.wav;"dog;rain";valid', ["cells are separated by semicolons"]),
        ("path\tlabels\tsplit", "a.wav\tdog;rain\tvalid", ["cells are separated by tabs"]),
        ("filename,class,split", "a.wav,dog;rain,valid",
         ["column 'filename' is taken for path", "column 'class' is taken for labels"]),
        ("file,path,category,labels,split", "no,a.wav,no,dog;rain,valid", []),
        ("x,x,path,labels,split,,", "1,2,a.wav,dog;rain,valid,,", []),
        ("path,labels,split", "a.wav,dog;rain,valid,,", []),
        ("path,labels,split", "a.wav,dog;rain,dev", ["split 'dev' is taken for valid"]),
        ("path,labels,split", "a.wav,dog;rain,Validation", ["split 'Validation' is taken for valid"]),
    ],
)  # fmt: skip
def test_what_leaves_no_doubt_is_read_and_said(
    tmp_path: Path, newline: str, header: str, row: str, notes: list[str]
) -> None:
    text = f"\ufeff{header}{newline}{newline}{row}{newline}"
    (tmp_path / "m.csv").write_bytes(text.encode())
    manifest = read_manifest(tmp_path / "m.csv")
    clip = Clip(id="a.wav", path=tmp_path / "a.wav", labels=("dog", "rain"), split="valid")
    assert (list(manifest), list(manifest.notes)) == ([clip], notes)


def test_columns_of_any_name_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", "labels,clip,species,Labels\n1,a.wav,wren,2\n")
    manifest = load_manifest(path, path_column="clip", label_column="species")
    assert [(clip.id, clip.labels) for clip in manifest] == [("a.wav", ("wren",))]
    both = read_manifest(path, path_column="clip", label_column="Labels")
    assert [clip.labels for clip in both] == [("2",)]
    with pytest.raises(InputError, match="no column 'sort'; wanted path,labels, found labels,clip,species"):
        read_manifest(path, path_column="clip", label_column="sort")
    with pytest.raises(InputError, match="path_column and label_column are for CSV files"):
        load_manifest(tmp_path, path_column="clip")


@pytest.mark.parametrize(
    ("split", "meant"),
    [("val", "valid"), ("dev", "valid"), ("validation", "valid"), ("training", "train"),
     ("testing", "test"), ("eval", "test"), ("TRAIN", "train")],
)  # fmt: skip
def test_the_names_that_data_sets_give_splits_are_understood(tmp_path: Path, split: str, meant: str) -> None:
    manifest = read_manifest(write(tmp_path / "m.csv", f"path,labels,split\na.wav,x,{split}\n"))
    assert [clip.split for clip in manifest] == [meant]
    (tmp_path / "data" / split / "dog").mkdir(parents=True)
    (tmp_path / "data" / split / "dog/a.wav").touch()
    assert [(clip.split, clip.labels) for clip in from_folders(tmp_path / "data")] == [(meant, ("dog",))]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    clips = [
        Clip(
            id="a", path=tmp_path / "a.wav", start=0.1, end=1 / 3, labels=("x", "y"), split="test", fold="2"
        ),
        Clip(id="b", path=tmp_path / "b, with comma.wav"),
    ]
    write_manifest(tmp_path / "m.csv", clips)
    assert list(read_manifest(tmp_path / "m.csv")) == clips


def test_the_digest_follows_labels_and_not_paths(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return read_manifest(write(tmp_path / "m.csv", text)).digest

    assert digest("path,labels,id\na.wav,x,1\n") == digest("path,labels,id\nmoved/a.wav,x,1\n")
    assert digest("path,labels,id\na.wav,x,1\n") != digest("path,labels,id\na.wav,y,1\n")


def test_class_folders_become_labels(tmp_path: Path) -> None:
    for name in ("dog/1.wav", "dog/deep/2.FLAC", "cat/3.ogg", "cat/notes.txt", "top.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    clips = {clip.id: clip.labels for clip in load_manifest(tmp_path)}
    assert clips == {"cat/3.ogg": ("cat",), "dog/1.wav": ("dog",), "dog/deep/2.FLAC": ("dog",)}


def test_split_folders_above_class_folders_become_splits(tmp_path: Path) -> None:
    for name in ("train/dog/1.wav", "test/dog/2.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [(clip.split, clip.labels) for clip in from_folders(tmp_path)] == [
        ("test", ("dog",)),
        ("train", ("dog",)),
    ]


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no audio file in the class folders"):
        from_folders(tmp_path)
    with pytest.raises(MissingError, match="no folder at"):
        from_folders(tmp_path / "none")


def test_windows_cover_the_whole_segment(tmp_path: Path) -> None:
    clip = Clip(id="a", path=tmp_path / "a.wav", start=5.0, labels=("x",), split="test")
    windows = window([clip], [12.0], length=5.0, hop=2.5)
    assert [(one.start, one.end) for one in windows] == [(5, 10), (7.5, 12.5), (10, 15), (12.5, 17)]
    assert {(one.labels, one.split) for one in windows} == {(("x",), "test")}
    assert len({one.id for one in windows}) == 4


def test_windows_far_into_a_recording_have_ids_of_their_own(tmp_path: Path) -> None:
    clip = Clip(id="a", path=tmp_path / "a.wav", start=100_000, end=100_004)
    windows = window([clip], [4.0], length=1.0, hop=0.25)
    assert len({one.id for one in windows}) == len(windows) == 13
    assert [one.id for one in windows[:2]] == ["a@100000-100001", "a@100000.25-100001.25"]


def test_segments_that_differ_by_a_microsecond_have_ids_of_their_own(tmp_path: Path) -> None:
    rows = [f"a.wav,x,{start:.6f},{start + 1:.6f}" for start in (0.000001, 0.000002, 1e6, 1e6 + 1e-6)]
    text = "\n".join(["path,labels,start,end", *rows]) + "\n"
    ids = [clip.id for clip in read_manifest(write(tmp_path / "m.csv", text))]
    assert ids == [
        *("a.wav@0.000001-1.000001", "a.wav@0.000002-1.000002"),
        *("a.wav@1000000-1000001", "a.wav@1000000.000001-1000001.000001"),
    ]


def test_ids_that_collide_are_refused_wherever_the_clips_come_from(make_audio: Make, tmp_path: Path) -> None:
    path = make_audio("a.wav", seconds=2)
    clips = [Clip(id="a", path=path, end=2), Clip(id="a@0-1", path=path, end=1)]
    with pytest.raises(InputError, match="has the id 'a@0-1' 2 times"):
        window_manifest(Manifest(tuple(clips), tmp_path), 1.0)


def test_a_clip_that_fits_one_window_stays_itself(tmp_path: Path) -> None:
    clip = Clip(id="a", path=tmp_path / "a.wav")
    assert window([clip], [10.0], length=10.0, hop=10.0) == [clip]
