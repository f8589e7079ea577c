"""What goes wrong with real downloads: each is read right, or refused in one line that says what to do."""

# ruff: noqa: E501  (rows of tables)

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from featcache.datasets.birdset_events import as_list, largest_cluster, piece
from featcache.datasets.prepare import named_source, prepare
from featcache.datasets.root import AudioFiles
from featcache.datasets.youtube import youtube_id
from featcache.errors import InputError, MissingError

Unpack = Callable[[Mapping[str, object]], Path]

ESC = "filename,fold,target,category,esc10,src_file,take\n"
ROW = "1-1-A-0.wav,1,0,dog,True,1,A\n"
VALID = "metadata/validation/validation.tsv"
WORDS = {"validation_list.txt": "", "testing_list.txt": ""}
JAMS = "annotations/train/a.jams"
MIDS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n'
SEGMENTS = "YTID,start_seconds,end_seconds,positive_labels\n"


@pytest.mark.parametrize("id", ["--PJHxphWEs", "Yab_cdefghi", "YYab_cdefgh", "abcdef_h_12", "_bcdefghi_1"])
@pytest.mark.parametrize("written", ["{}", "Y{}", "{}_30", "Y{}_30.000_40.000", "{}_30_40", "Y{}_0"])
def test_an_id_is_found_in_every_way_in_which_files_are_named(id: str, written: str) -> None:
    assert youtube_id(written.format(id)) == id


@pytest.mark.parametrize("stem", ["short", "Y--PJHxphWEsX", "abcdefghijk_", "abcdefghijk_12_x"])
def test_what_is_no_id_is_none(stem: str) -> None:
    assert youtube_id(stem) is None


BAD: dict[str, tuple[str, dict[str, object], str]] = {
    "another folder": ("esc50", {"audio/a.wav": 1, "README.md": ""}, r"no ESC-50 at .*: looked for meta/esc50.csv, found README.md, audio; name the folder"),
    "two copies": ("esc50", {"a/meta/esc50.csv": ESC, "b/meta/esc50.csv": ESC}, r"there more than once \(.*a/meta.*b/meta"),
    "other columns": ("esc50", {"meta/esc50.csv": "filename,fold\na.wav,1\n"}, r"no column 'category' or 'esc10'; wanted filename,fold,category,esc10, found filename,fold$"),
    "a name for a number": ("esc50", {"meta/esc50.csv": "filename,fold,category,esc10\na.wav,1,dog,True\n"}, r"line 2: the number of class 'dog' is 'dog'"),
    "an id twice": ("esc50", {"meta/esc50.csv": ESC + ROW + ROW, "audio/1-1-A-0.wav": 1}, r"has the id '1-1-A-0.wav' 2 times"),
    "not all files": ("esc50", {"meta/esc50.csv": ESC + ROW + ROW.replace("1-1", "1-2"), "audio/1-1-A-0.wav": 1}, r"2,000 files were published, 2 are listed; 1 of 2 clips have no file, first .*1-2-A-0.wav; .* allow_missing"),
    "ogg without fold": ("esc10", {"001 - Dog bark/dog.ogg": 1}, r"does not begin with its fold"),
    "an unknown class": ("as20k", {"class_labels_indices.csv": MIDS, "balanced_train_segments.csv": SEGMENTS + "abcdefghijk,0,10,/m/0\n", "eval_segments.csv": SEGMENTS}, r"line 2: '/m/0' is no class"),
    "a segment of no length": ("as20k", {"class_labels_indices.csv": MIDS, "balanced_train_segments.csv": SEGMENTS + "abcdefghijk,10,10,/m/09x0r\n"}, r"line 2: the event 'segment' ends at 10 s and begins at 10 s"),
    "a cut list": ("as20k", {"class_labels_indices.csv": MIDS, "eval_segments.csv": SEGMENTS, "balanced_train_segments.csv": "# a\n# num_segs=22160,\n# b\nabcdefghijk, 0.000, 10.000, \"/m/09x0r\"\n"}, r"says that it lists 22,160 segments and lists 1"),
    "m4a": ("as20k", {"class_labels_indices.csv": MIDS, "eval_segments.csv": SEGMENTS, "balanced_train_segments.csv": SEGMENTS + "abcdefghijk,0,10,/m/09x0r\n", "abcdefghijk.m4a": b"x"}, r"1 files are .m4a, which libsndfile cannot read, first .*: convert them, as with 'ffmpeg -i abcdefghijk.m4a abcdefghijk.flac'"),
    "an event of no length": ("desed", {VALID: "filename\tonset\toffset\tevent_label\na.wav\t1\t1\tDog\n"}, r"line 2: the event 'Dog' ends at 1 s"),
    "half an event": ("desed", {VALID: "filename\tonset\toffset\tevent_label\na.wav\t1\t\tDog\n"}, r"line 2: an event of 'Dog' has no start or no end"),
    "a class of another set": ("desed", {VALID: "filename\tonset\toffset\tevent_label\na.wav\t1\t2\tHorse\n"}, r"clip 'a' has the label 'Horse', which is none of its 10 classes"),
    "spaces": ("spass", {"1_MatrixLabelsMarket.csv": "audio_filename,class\nmarket00001.wav,violin\n"}, r"line 2: 'violin' is no class of SPASS; known: Vwater"),
    "no jams": ("urban-sed", {JAMS: "[]"}, r"a.jams is no JAMS file of Scaper"),
    "no annotation": ("urban-sed", {"annotations/train/a.txt": "0\t1\tsiren\n", "audio/train/b.wav": 1, "audio/train/a.wav": 1}, r"1 files have no annotation, first .*b.wav"),
    "no test archive": ("speechcommands-12", {**WORDS, "yes/a_nohash_0.wav": 1}, r"looked for speech_commands_test_set_v0.02, found"),
    "noise that is none": ("speechcommands-12", {**WORDS, "yes/a_nohash_0.wav": 1, "_background_noise_/a.wav": b"x"}, r"background noise cannot be cut into silence: .*a.wav"),
    "pointers": ("crema-d", {"AudioWAV/1001_DFA_ANG_XX.wav": b"version https://git-lfs.github.com/spec/v1\n"}, r"is a pointer of Git LFS, no audio; clone with git-lfs"),
    "an emotion": ("crema-d", {"AudioWAV/1001_DFA_JOY_XX.wav": 1}, r"is not called as in CREMA-D"),
    "a key": ("nsynth-instrument", {"nsynth-train/examples.json": '{"a": {"pitch": 3, "note": 4}}'}, r"has no 'instrument_family_str' for a note; found pitch, note"),
    "not json": ("nsynth-instrument", {"nsynth-train/examples.json": "[1]"}, r"is no list of notes"),
    "a stranger": ("vocalsound", {"meta/tr_meta.csv": "", "meta/val_meta.csv": "", "meta/te_meta.csv": "", "audio_16k/f1_0_cough.wav": 1}, r"wanted SPEAKER_N_LABEL.wav"),
    "latin-1": ("esc50", {"meta/esc50.csv": ESC.encode() + b"caf\xe9.wav,1,0,dog,True,1,A\n"}, r"is not UTF-8 text"),
    "no parquet": ("idmt-desed-fl", {"a.csv": "x"}, r"no parquet files with audio at .*; IDMT-DESED-FL is read as the Hub has it"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_download_is_refused_in_one_line(what: str, unpack: Unpack) -> None:
    name, files, message = BAD[what]
    with pytest.raises(InputError, match=message) as caught:
        prepare(name, unpack(files), splits={"desed": ["valid"], "urban-sed": ["train"]}.get(name, []))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        MissingError, match=r"no folder at .*none; wanted the one that ESC-50 was unpacked in"
    ):
        prepare("esc50", tmp_path / "none")


def test_a_name_that_is_in_no_table_is_told_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set named 'esc5'; did you mean 'esc50'\?"):
        prepare("esc5", tmp_path)


def test_other_delimiters_line_ends_and_a_byte_order_mark_are_read(unpack: Unpack) -> None:
    table = "\ufeff" + (ESC + ROW).replace(",", ";").replace("\n", "\r\n")
    prepared = prepare("esc50", unpack({"meta/esc50.csv": table, "audio/1-1-A-0.wav": 1}), allow_missing=True)
    assert [clip.labels for clip in prepared.manifest] == [("dog",)]


def test_what_is_missing_is_left_out_only_where_that_is_allowed_and_is_said(unpack: Unpack) -> None:
    files = {"meta/esc50.csv": ESC + ROW + ROW.replace("1-1", "1-2"), "audio/1-1-A-0.wav": 1}
    prepared = prepare("esc50", unpack(files), allow_missing=True)
    assert [clip.id for clip in prepared.manifest] == ["1-1-A-0.wav"]
    assert prepared.problems[0] == "2,000 files were published, 2 are listed"
    assert prepared.problems[1].startswith("1 of 2 clips have no file")


def test_without_any_audio_there_is_no_manifest_whatever_is_allowed(unpack: Unpack) -> None:
    with pytest.raises(InputError, match=r"has none of its audio: .*1 of 1 clips have no file"):
        prepare("esc50", unpack({"meta/esc50.csv": ESC + ROW}), allow_missing=True)


def test_one_split_needs_the_files_of_that_split_alone(unpack: Unpack) -> None:
    files = {
        "class_labels_indices.csv": MIDS,
        "eval_segments.csv": SEGMENTS + "abcdefghijk,0,10,/m/09x0r\n",
        "abcdefghijk.wav": 1,
    }
    prepared = prepare("as20k", unpack(files), splits=["test"], allow_missing=True)
    assert [clip.split for clip in prepared.manifest] == ["test"]
    with pytest.raises(MissingError, match=r"looked for balanced_train_segments.csv"):
        prepare("as20k", unpack(files), allow_missing=True)


def test_a_split_of_a_set_with_folds_is_refused(unpack: Unpack) -> None:
    with pytest.raises(InputError, match=r"lists no clip in test; it has 1 files without a split"):
        prepare("esc50", unpack({"meta/esc50.csv": ESC + ROW, "audio/1-1-A-0.wav": 1}), splits=["test"])


def test_a_readable_copy_is_taken_before_one_that_libsndfile_cannot_read(unpack: Unpack) -> None:
    files = {"meta/esc50.csv": ESC + ROW, "audio/1-1-A-0.m4a": b"x", "audio/1-1-A-0.flac": 1}
    (clip,) = prepare("esc50", unpack(files), allow_missing=True).manifest
    assert clip.path.suffix == ".flac"


def test_folders_that_are_links_are_entered_and_none_twice(unpack: Unpack, tmp_path: Path) -> None:
    root = unpack({"meta/esc50.csv": ESC + ROW, "elsewhere/1-1-A-0.wav": 1})
    (root / "elsewhere").rename(tmp_path / "disk")
    (root / "audio").mkdir()
    (root / "audio/more").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/again").symlink_to(tmp_path / "disk")
    found = AudioFiles(root / "audio")
    assert found.files == {"more/1-1-A-0": root / "audio/more/1-1-A-0.wav"}


def test_over_long_clips_of_fsd50k_are_kept_and_said(unpack: Unpack) -> None:
    files = {
        "FSD50K.ground_truth/vocabulary.csv": "0,Bark,/m/05tny_\n",
        "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n83299,Bark,/m/05tny_,train\n",
        "FSD50K.dev_audio/83299.wav": 1,
    }
    prepared = prepare("fsd50k", unpack(files), splits=["train"], allow_missing=True)
    assert [clip.id for clip in prepared.manifest] == ["83299"]
    assert prepared.manifest.notes == ("1 clips are of 30 s or more and are kept (83299)",)


def test_an_event_behind_the_end_of_its_clip_is_left_out_and_said(unpack: Unpack) -> None:
    rows = "filename\tonset\toffset\tevent_label\na.wav\t0.5\t3\tDog\na.wav\t2\t3\tDog\n"
    prepared = prepare(
        "desed", unpack({VALID: rows, "audio/validation/a.wav": 1}), splits=["valid"], allow_missing=True
    )
    assert [(event.start, event.end) for event in prepared.events] == [(0.5, 1.0)]
    assert prepared.manifest.notes == ("1 events begin behind the end of their clip and are left out",)


def test_event_times_of_spass_are_read_by_their_usual_names_or_said_to_be_missing(unpack: Unpack) -> None:
    with_times = "audio_filename,class,onset,offset\nmarket00001.wav,talk,0.25,0.5\n"
    without = "audio_filename,class,beginning\npark00001.wav,talk,1\n"
    files: dict[str, object] = {"1_MatrixLabelsMarket.csv": with_times, "2_MatrixLabelsPark.csv": without}
    files |= {
        f"{number}_MatrixLabels{scene}.csv": without
        for number, scene in ((3, "Square"), (4, "Street"), (5, "Waterfront"))
    }
    files |= {name: str(text).replace("park", name[14:-4].lower()) for name, text in files.items()}
    files |= {f"audio/{scene}00001.wav": 1 for scene in ("market", "park", "square", "street", "waterfront")}
    prepared = prepare("spass", unpack(files), allow_missing=True)
    assert [(event.id, event.start, event.label) for event in prepared.events] == [
        ("market00001", 0.25, "talk")
    ]
    assert len(prepared.manifest.notes) == 4
    assert (
        "has no columns of event times that are known (onset/offset, start/end" in prepared.manifest.notes[0]
    )


def test_a_source_is_a_data_set_only_where_no_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_source("esc50:data") == ("esc50", "data")
    assert named_source("clips.csv") is named_source("/data/a:b.csv") is None
    with pytest.raises(InputError, match=r"no data set named 'esc5'"):
        named_source("esc5:data")
    (tmp_path / "esc5:data").write_text("path,labels\n")
    assert named_source("esc5:data") is None


def test_events_of_a_recording_are_those_of_its_largest_cluster() -> None:
    events = [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert largest_cluster(events, [2, 1, 1, 2]) == [(2.0, 3.0), (4.0, 5.0)]  # equal: the lower number
    assert largest_cluster(events, [-1, -1, -1, 5]) == [(6.0, 7.0)]
    assert largest_cluster(events, [-1] * 4) == []
    assert largest_cluster([[0, 1]], [-1]) == [(0.0, 1.0)]
    with pytest.raises(InputError, match="1 detected events have 0 clusters"):
        largest_cluster([[0, 1]], [])


def test_a_name_without_offsets_is_a_whole_soundscape() -> None:
    assert piece("XC_10_20") == ("XC_10_20", 0.0)
    assert piece("site_20160101_120000_000_005") == ("site_20160101_120000", 0.0)


def test_text_that_is_no_list_is_refused() -> None:
    with pytest.raises(InputError, match=r"have 'amered' where a list was wanted"):
        as_list("amered")
