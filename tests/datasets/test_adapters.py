"""Every data set's official layout in miniature, and the manifest that it should give, written by hand."""

# ruff: noqa: E501  (rows of tables)

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from featcache.datasets.prepare import Prepared, prepare
from featcache.datasets.table import DATASETS
from featcache.errors import InputError
from featcache.manifest.events import Event

Unpack = Callable[[Mapping[str, object]], Path]
Rows = Callable[[Prepared, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Miniature:
    """A layout and what should be read of it."""

    files: dict[str, object]  # text, bytes, or noise of so many seconds
    rows: str  # path|labels|id|start|end|split|fold|group
    events: list[tuple[str, float, float, str]] = field(default_factory=list)


MIDS = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/t/dd00088,"Gargling"\n'
BALANCED = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=4, num_segs=4, num_unique_labels=3, num_positive_labels=6
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
Yab_cdefghi, 50.000, 60.000, "/m/05zppz"
abcdef_h_12, 0.000, 8.000, "/m/09x0r"
ZhevVpy1s_0, 0.000, 5.000, "/m/05zppz,/m/09x0r"
"""
EVAL = "YTID,start_seconds,end_seconds,positive_labels\n-0RWZT-miFs,420,430,/m/09x0r\n"
AUDIOSET: dict[str, object] = {
    "class_labels_indices.csv": MIDS,
    "balanced_train_segments.csv": BALANCED,
    "eval_segments.csv": EVAL,
    "balanced_train_segments/Y--PJHxphWEs.wav": 1,
    "balanced_train_segments/Yab_cdefghi.wav": 1,
    "audio/bal_train/abcdef_h_12_0_8000.flac": 1,
    "audio/bal_train/YZhevVpy1s_0_0.000_5.000.wav": 1,
    "eval_segments/-0RWZT-miFs_420.wav": 1,
}
AS20K = """balanced_train_segments/Y--PJHxphWEs.wav|Speech;Gargling|--PJHxphWEs|0||train||
balanced_train_segments/Yab_cdefghi.wav|Male speech, man speaking|Yab_cdefghi|0||train||
audio/bal_train/abcdef_h_12_0_8000.flac|Speech|abcdef_h_12|0||train||
audio/bal_train/YZhevVpy1s_0_0.000_5.000.wav|Male speech, man speaking;Speech|ZhevVpy1s_0|0||train||
eval_segments/-0RWZT-miFs_420.wav|Speech|-0RWZT-miFs|0||test||"""

FSD = "FSD50K.ground_truth"
SCENES = ("Market", "Park", "Square", "Street", "Waterfront")


def spass() -> Miniature:
    """A table and two clips for each scene."""
    files: dict[str, object] = {}
    for number, scene in enumerate(SCENES, start=1):
        low = scene.lower()
        files[f"{number}_MatrixLabels{scene}.csv"] = (
            "audio_filename;class;azimuth\n"
            f"{low}00001.wav;car_moving;3\n{low}00001.wav;car_idling;4\n{low}00001.wav;Vwater;5\n{low}00002.wav;talk;6\n"
        )
        files[f"{scene} audio files/{low}00001.wav"] = 1
        files[f"{scene} audio files/{low}00002.wav"] = 1
    lines = []
    for scene in SCENES:
        low, folder = scene.lower(), f"{scene} audio files"
        lines.append(f"{folder}/{low}00001.wav|car;water vehicle|{low}00001|0||test||")
        lines.append(f"{folder}/{low}00002.wav|talk|{low}00002|0||train||")
    return Miniature(files=files, rows="\n".join(lines))


def jams(*data: dict[str, object]) -> str:
    """A file as Scaper writes it."""
    return json.dumps(
        {"annotations": [{"namespace": "scaper", "data": list(data)}], "file_metadata": {"duration": 10.0}}
    )


def scaper(time: float, duration: float, label: str, role: str, unstretched: float) -> dict[str, object]:
    """One row of it."""
    value = {
        "label": label,
        "role": role,
        "event_time": time,
        "event_duration": unstretched,
        "time_stretch": 1.1,
    }
    return {"time": time, "duration": duration, "value": value, "confidence": 1.0}


MINIATURES: dict[str, Miniature] = {
    "as20k": Miniature(
        files={
            **AUDIOSET,
            "audioset_train_strong.tsv": (
                "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
                "abcdef_h_12_0\t0.25\t0.5\t/m/09x0r\nnot_in_list_30000\t1\t2\t/m/09x0r\n"
                "--PJHxphWEs_30000\t0.000\t10.000\t/m/053hz1\n"
            ),
            "mid_to_display_name.tsv": "/m/053hz1\tCheering\n/m/09x0r\tSpeech\n",
        },
        rows=AS20K,
        events=[("abcdef_h_12", 0.25, 0.5, "Speech"), ("--PJHxphWEs", 0.0, 1.0, "Cheering")],
    ),
    "as2m": Miniature(
        files={
            **AUDIOSET,
            "unbalanced_train_segments.csv": '# x\n# num_segs=1\n# y\n---1_cCGK4M, 0.000, 10.000, "/m/09x0r"\n',
            "unbalanced_train_segments/unbalanced_train_segments_part00/Y---1_cCGK4M.wav": 1,
        },
        rows=AS20K.replace(
            "eval_segments/",
            "unbalanced_train_segments/unbalanced_train_segments_part00/Y---1_cCGK4M.wav|Speech|---1_cCGK4M|0||train||\n"
            "eval_segments/",
        ),
    ),
    "fsd50k": Miniature(
        files={
            f"{FSD}/vocabulary.csv": "0,Electric_guitar,/m/02sgy\n1,Guitar,/m/0342h\n2,Music,/m/04rlf\n3,Bark,/m/05tny_\n",
            f"{FSD}/dev.csv": (
                "fname,labels,mids,split\r\n"
                '64760,"Electric_guitar,Guitar,Music","/m/02sgy,/m/0342h,/m/04rlf",train\r\n'
                "83299,Bark,/m/05tny_,val\r\n"
            ),
            f"{FSD}/eval.csv": "fname,labels,mids\n99,Bark,/m/05tny_\n",
            "FSD50K.dev_audio/64760.wav": 1,
            "FSD50K.dev_audio/83299.wav": 1,
            "FSD50K.eval_audio/99.wav": 1,
        },
        rows="""FSD50K.dev_audio/64760.wav|Electric_guitar;Guitar;Music|64760|0||train||
FSD50K.dev_audio/83299.wav|Bark|83299|0||valid||
FSD50K.eval_audio/99.wav|Bark|99|0||test||""",
    ),
    "desed": Miniature(
        files={
            "metadata/train/weak.tsv": "filename\tevent_labels\nYKK227gPpRn4_30.000_40.000.wav\tAlarm_bell_ringing,Speech\n",
            "metadata/validation/validation.tsv": (
                "filename\tonset\toffset\tevent_label\n"
                "Y-0UGn_8B_M_30.000_40.000.wav\t0.5\t0.75\tDog\n"
                "Y-0UGn_8B_M_30.000_40.000.wav\t0.250\t10.115\tCat\n"
                "YYmptYs12345_0.000_10.000.wav\t\t\t\n"
            ),
            "metadata/eval/public.tsv": "filename\tonset\toffset\tevent_label\n1Ro0FgMWTUE_120_130.wav\t0\t11.0\tSpeech\n",
            "audio/train/weak/YKK227gPpRn4_30.000_40.000.wav": 1,
            "audio/validation/Y-0UGn_8B_M_30.000_40.000.wav": 1,
            "audio/validation/YmptYs12345_0_10.wav": 1,  # the list has the Y, its file has not
            "audio/eval/public/Y1Ro0FgMWTUE_120.000_130.000.wav": 1,  # and the other way round
        },
        rows="""audio/train/weak/YKK227gPpRn4_30.000_40.000.wav|Alarm_bell_ringing;Speech|YKK227gPpRn4_30.000_40.000|0||train||
audio/validation/Y-0UGn_8B_M_30.000_40.000.wav|Cat;Dog|Y-0UGn_8B_M_30.000_40.000|0||valid||
audio/validation/YmptYs12345_0_10.wav||YYmptYs12345_0.000_10.000|0||valid||
audio/eval/public/Y1Ro0FgMWTUE_120.000_130.000.wav|Speech|1Ro0FgMWTUE_120_130|0||test||""",
        events=[
            ("Y-0UGn_8B_M_30.000_40.000", 0.5, 0.75, "Dog"),
            ("Y-0UGn_8B_M_30.000_40.000", 0.25, 1.0, "Cat"),
            ("1Ro0FgMWTUE_120_130", 0.0, 1.0, "Speech"),
        ],
    ),
    "spass": spass(),
    "urban-sed": Miniature(
        files={
            "URBAN-SED_v2.0.0/annotations/train/soundscape_train_bimodal0.txt": "0.25\t0.5\tsiren\n0.5\t0.75\tdog_bark\n",
            "URBAN-SED_v2.0.0/annotations/train/soundscape_train_bimodal0.jams": "{}",
            "URBAN-SED_v2.0.0/annotations/validate/soundscape_validate_uniform1.jams": jams(
                scaper(0.0, 10.0, "park", "background", 10.0), scaper(0.125, 0.5, "gun_shot", "foreground", 0.25)
            ),
            "URBAN-SED_v2.0.0/annotations/test/soundscape_test_unimodal2.txt": "",
            "URBAN-SED_v2.0.0/audio/train/soundscape_train_bimodal0.wav": 1,
            "URBAN-SED_v2.0.0/audio/validate/soundscape_validate_uniform1.wav": 1,
            "URBAN-SED_v2.0.0/audio/test/soundscape_test_unimodal2.wav": 1,
        },
        rows="""URBAN-SED_v2.0.0/audio/train/soundscape_train_bimodal0.wav|dog_bark;siren|soundscape_train_bimodal0|0||train||
URBAN-SED_v2.0.0/audio/validate/soundscape_validate_uniform1.wav|gun_shot|soundscape_validate_uniform1|0||valid||
URBAN-SED_v2.0.0/audio/test/soundscape_test_unimodal2.wav||soundscape_test_unimodal2|0||test||""",
        events=[
            ("soundscape_train_bimodal0", 0.25, 0.5, "siren"),
            ("soundscape_train_bimodal0", 0.5, 0.75, "dog_bark"),
            ("soundscape_validate_uniform1", 0.125, 0.625, "gun_shot"),
        ],
    ),
    "esc50": Miniature(
        files={
            "ESC-50-master/meta/esc50.csv": (
                "filename,fold,target,category,esc10,src_file,take\n"
                "1-100032-A-0.wav,1,0,dog,True,100032,A\n2-100210-B-36.wav,2,36,vacuum_cleaner,False,100210,B\n"
            ),
            "ESC-50-master/audio/1-100032-A-0.wav": 1,
            "ESC-50-master/audio/2-100210-B-36.wav": 1,
        },
        rows="""ESC-50-master/audio/1-100032-A-0.wav|dog|1-100032-A-0.wav|0|||1|100032
ESC-50-master/audio/2-100210-B-36.wav|vacuum_cleaner|2-100210-B-36.wav|0|||2|100210""",
    ),
    "esc10": Miniature(
        files={
            "001 - Dog bark/1-100032-A.ogg": 1,
            "003 - Sea waves/5-100210-B.ogg": 1,
            "ESC-10-HumanClassification.xlsx": "-",
        },
        rows="""001 - Dog bark/1-100032-A.ogg|dog|001/1-100032-A.ogg|0|||1|100032
003 - Sea waves/5-100210-B.ogg|sea_waves|003/5-100210-B.ogg|0|||5|100210""",
    ),
    "speechcommands-35": Miniature(
        files={
            "speech_commands_v0.02/validation_list.txt": "no/0a_nohash_0.wav\n",
            "speech_commands_v0.02/testing_list.txt": "bird/0b_nohash_0.wav\n",
            "speech_commands_v0.02/yes/0a7c2a8d_nohash_0.wav": 1,
            "speech_commands_v0.02/no/0a_nohash_0.wav": 1,
            "speech_commands_v0.02/bird/0b_nohash_0.wav": 1,
            "speech_commands_v0.02/_background_noise_/running_tap.wav": 2,
        },
        rows="""speech_commands_v0.02/bird/0b_nohash_0.wav|bird|bird/0b_nohash_0.wav|0||test||0b
speech_commands_v0.02/no/0a_nohash_0.wav|no|no/0a_nohash_0.wav|0||valid||0a
speech_commands_v0.02/yes/0a7c2a8d_nohash_0.wav|yes|yes/0a7c2a8d_nohash_0.wav|0||train||0a7c2a8d""",
    ),
    "speechcommands-12": Miniature(
        files={
            "validation_list.txt": "no/0a_nohash_0.wav\n",
            "testing_list.txt": "bird/0b_nohash_0.wav\n",
            "bird/0c_nohash_0.wav": 1,
            "bird/0b_nohash_0.wav": 1,
            "no/0a_nohash_0.wav": 1,
            "_background_noise_/running_tap.wav": 1,
            "_background_noise_/pink_noise.wav": 2.25,
            "_background_noise_/README.md": "-",
            "speech_commands_test_set_v0.02/_unknown_/backward_0c540988_nohash_0.wav": 1,
            "speech_commands_test_set_v0.02/_silence_/0.wav": 1,
            "speech_commands_test_set_v0.02/yes/0d_nohash_0.wav": 1,
        },
        rows="""bird/0c_nohash_0.wav|_unknown_|bird/0c_nohash_0.wav|0||train||0c
no/0a_nohash_0.wav|no|no/0a_nohash_0.wav|0||valid||0a
_background_noise_/pink_noise.wav|_silence_|_background_noise_/pink_noise@0-1|0|1|train||pink_noise
_background_noise_/pink_noise.wav|_silence_|_background_noise_/pink_noise@0.5-1.5|0.5|1.5|train||pink_noise
_background_noise_/pink_noise.wav|_silence_|_background_noise_/pink_noise@1-2|1|2|train||pink_noise
_background_noise_/running_tap.wav|_silence_|_background_noise_/running_tap@0-1|0|1|valid||running_tap
speech_commands_test_set_v0.02/_silence_/0.wav|_silence_|test/_silence_/0|0||test||
speech_commands_test_set_v0.02/_unknown_/backward_0c540988_nohash_0.wav|_unknown_|test/_unknown_/backward_0c540988_nohash_0|0||test||
speech_commands_test_set_v0.02/yes/0d_nohash_0.wav|yes|test/yes/0d_nohash_0|0||test||""",
    ),
    "urbansound8k": Miniature(
        files={
            "UrbanSound8K/metadata/UrbanSound8K.csv": (
                "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
                "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
                "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing\n"
            ),
            "UrbanSound8K/audio/fold5/100032-3-0-0.wav": 0.25,
            "UrbanSound8K/audio/fold10/100263-2-0-117.wav": 1,
        },
        rows="""UrbanSound8K/audio/fold5/100032-3-0-0.wav|dog_bark|100032-3-0-0.wav|0|||5|100032
UrbanSound8K/audio/fold10/100263-2-0-117.wav|children_playing|100263-2-0-117.wav|0|||10|100263""",
    ),
    "gtzan": Miniature(
        files={"genres/blues/blues.00000.wav": 1, "genres/rock/rock.00099.wav": 1, "genres/rock/._rock.00099.wav": "x"},
        rows="""genres/blues/blues.00000.wav|blues|blues.00000.wav|0||||
genres/rock/rock.00099.wav|rock|rock.00099.wav|0||||""",
    ),
    "nsynth-instrument": Miniature(
        files={
            f"nsynth-{split}/{name}": content
            for split, note in (("train", "bass_electronic_018-022-100"), ("valid", "flute_a"), ("test", "organ_b"))
            for name, content in {
                "examples.json": json.dumps({note: {"pitch": 22, "instrument_family_str": note.split("_")[0]}}),
                f"audio/{note}.wav": 1,
            }.items()
        },
        rows="""nsynth-train/audio/bass_electronic_018-022-100.wav|bass|bass_electronic_018-022-100|0||train||
nsynth-valid/audio/flute_a.wav|flute|flute_a|0||valid||
nsynth-test/audio/organ_b.wav|organ|organ_b|0||test||""",
    ),
    "crema-d": Miniature(
        files={"AudioWAV/1001_DFA_ANG_XX.wav": 1, "AudioWAV/1040_ITH_SAD_X.wav": 1},
        rows="""AudioWAV/1001_DFA_ANG_XX.wav|anger|1001_DFA_ANG_XX.wav|0||||1001
AudioWAV/1040_ITH_SAD_X.wav|sad|1040_ITH_SAD_X.wav|0||||1040""",
    ),
    "vocalsound": Miniature(
        files={
            "meta/tr_meta.csv": "f0003,female,30\n",
            "meta/val_meta.csv": "m0001,male,25\n",
            "meta/te_meta.csv": "f0009,female,41\n",
            "audio_16k/f0003_0_cough.wav": 1,
            "audio_16k/m0001_0_laughter.wav": 1,
            "audio_16k/f0009_1_sniff.wav": 1,
        },
        rows="""audio_16k/f0003_0_cough.wav|cough|f0003_0_cough.wav|0||train||f0003
audio_16k/f0009_1_sniff.wav|sniff|f0009_1_sniff.wav|0||test||f0009
audio_16k/m0001_0_laughter.wav|laughter|m0001_0_laughter.wav|0||valid||m0001""",
    ),
}  # fmt: skip
for _name, _csv in {
    "watkins": "data/watkins/annotations.{}.csv", "bats": "data/egyptian_fruit_bats/annotations.{}.csv",
    "cbi": "data/cbi/annotations.{}.csv", "dogs": "data/dogs/annotations.{}.csv",
    "humbugdb": "data/HumBugDB/data/metadata/{}.csv",
}.items():  # fmt: skip
    _sounds = {split: f"data/sounds/{split}, 1.wav" for split in ("train", "valid", "test")}
    MINIATURES[f"beans-{_name}"] = Miniature(
        files={
            **{
                f"beans/{_csv.format(split)}": f'path,label\n"{sound}","Beluga,_White_Whale"\n'
                for split, sound in _sounds.items()
            },
            **{f"beans/{sound}": 1 for sound in _sounds.values()},
        },
        rows="\n".join(
            f"beans/{sound}|Beluga,_White_Whale|{split}/{sound}|0||{split}||"
            for split, sound in _sounds.items()
        ),
    )
for _name, _hop, _label in (
    ("dcase", 1, "BTBW"), ("enabirds", 1, "AMRO"), ("hiceas", 5, "1"), ("rfcx", 5, "3"), ("gibbons", 2, "2"),
):  # fmt: skip
    _folder, _wide = f"data/{'hainan_gibbons' if _name == 'gibbons' else _name}", 2 * _hop
    _call = {"st": 1.5 * _hop, "ed": 1.7 * _hop, "label": int(_label) if _label.isdigit() else _label}
    _line = json.dumps({"path": f"{_folder}/a.wav", "length": 3.5 * _hop, "annotations": [_call]})
    MINIATURES[f"beans-{_name}"] = Miniature(
        files={
            **{
                f"{_folder}/{split}.jsonl": f"{_line}\n\n" if split == "test" else ""
                for split in ("train", "valid", "test")
            },
            f"{_folder}/a.wav": 3.5 * _hop,
        },
        rows="\n".join(
            f"{_folder}/a.wav|{_label}|test/{_folder}/a.wav@{start}-{start + _wide}|{start}|{start + _wide}|test||{_folder}/a.wav"
            for start in (0, _hop)
        ),
        events=[
            (
                f"test/{_folder}/a.wav@{start}-{start + _wide}",
                round(1.5 * _hop - start, 6),
                round(1.7 * _hop - start, 6),
                _label,
            )
            for start in (0, _hop)
        ],
    )
ELSEWHERE = {"idmt-desed-fl"} | {
    name for name in DATASETS if name.startswith("birdset-")
}  # test_hub, test_birdset


@pytest.mark.parametrize("name", MINIATURES)
def test_an_official_layout_gives_the_manifest_written_by_hand(name: str, unpack: Unpack, rows: Rows) -> None:
    own = MINIATURES[name]
    root = unpack(own.files)
    prepared = prepare(name, root, allow_missing=True)
    assert rows(prepared, root) == own.rows.splitlines()
    assert prepared.events == tuple(Event(id=i, start=s, end=e, label=t) for i, s, e, t in own.events)
    assert all("have no file" not in problem for problem in prepared.problems)


def test_beans_labels_windows_by_its_own_rule_and_knows_its_others(unpack: Unpack) -> None:
    calls = [
        {"st": 0.0, "ed": 0.1, "label": "AMRO"},  # whole in the first window
        {"st": 1.7, "ed": 9.0, "label": "NOFL"},  # 0.3 of 2 s in the first, 1.3 in the second
        {"st": 2.5, "ed": 2.5, "label": "OVEN"},  # of no length
        {"st": 2.2, "ed": 2.4, "label": "new species"},
    ]
    line = json.dumps({"path": "data/enabirds/a.wav", "length": 3.0, "annotations": calls})
    root = unpack({"data/enabirds/train.jsonl": line, "data/enabirds/a.wav": 3})
    prepared = prepare("beans-enabirds", root, splits=["train"])
    assert [clip.labels for clip in prepared.manifest] == [("AMRO",), ("NOFL", "OTHR")]
    with pytest.raises(
        InputError, match=r"train.jsonl line 1 is no recording of BEANS .*: KeyError 'annotations'"
    ):
        prepare(
            "beans-enabirds",
            unpack({"data/enabirds/train.jsonl": '{"path": "a", "length": 1}'}),
            splits=["train"],
        )


def test_every_data_set_of_the_table_has_a_miniature() -> None:
    assert set(DATASETS) == set(MINIATURES) | ELSEWHERE | {"nsynth-pitch"}


def test_a_pitch_is_the_number_of_its_key(unpack: Unpack) -> None:
    prepared = prepare("nsynth-pitch", unpack(MINIATURES["nsynth-instrument"].files), allow_missing=True)
    assert {clip.labels for clip in prepared.manifest} == {("22",)}


def test_older_lists_of_esc50_have_the_number_where_the_name_is_today(unpack: Unpack, rows: Rows) -> None:
    old = "filename,fold,category,category_name,esc10\n1-100032-A-0.wav,1,0,dog,True\n2-7-B-36.wav,2,36,vacuum_cleaner,False\n"
    root = unpack({"meta/esc50.csv": old, "audio/1-100032-A-0.wav": 1, "audio/2-7-B-36.wav": 1})
    both = [
        "audio/1-100032-A-0.wav|dog|1-100032-A-0.wav|0|||1|100032",
        "audio/2-7-B-36.wav|vacuum_cleaner|2-7-B-36.wav|0|||2|7",
    ]
    assert rows(prepare("esc50", root, allow_missing=True), root) == both
    assert rows(prepare("esc10", root, allow_missing=True), root) == both[:1]


def test_fsd50k_is_read_as_the_hub_lays_it_out_too(unpack: Unpack, rows: Rows) -> None:
    moved: dict[str, object] = {
        name.replace(f"{FSD}/", "labels/")
        .replace("FSD50K.dev_audio", "clips/dev")
        .replace("FSD50K.eval_audio", "clips/eval"): content
        for name, content in MINIATURES["fsd50k"].files.items()
    }
    prepared = prepare("fsd50k", root := unpack(moved), allow_missing=True)
    assert [row.split("|")[0] for row in rows(prepared, root)] == [
        "clips/dev/64760.wav",
        "clips/dev/83299.wav",
        "clips/eval/99.wav",
    ]


def test_text_and_jams_of_urban_sed_say_the_same(unpack: Unpack) -> None:
    from featcache.datasets.urbansed import read_jams, read_text

    root = unpack({
        "a.txt": "0.5\t2.5\tsiren\n3.0\t4.0\tgun_shot\n",
        "a.jams": jams(
            scaper(0.0, 10.0, "street", "background", 10.0),
            scaper(0.5, 2.0, "siren", "foreground", 1.8),
            scaper(3.0, 1.0, "gun_shot", "foreground", 1.0),
        ),
    })  # fmt: skip
    assert read_text(root / "a.txt") == read_jams(root / "a.jams")


def test_splits_of_spass_are_ours_and_always_the_same() -> None:
    from collections import Counter

    from featcache.datasets.spass import draw_splits

    ids = [f"market{number:05d}" for number in range(1, 5_001)]
    splits = draw_splits(ids)
    assert Counter(splits.values()) == {"train": 3_500, "valid": 750, "test": 750}
    assert [splits[id] for id in ids[:5]] == ["train", "train", "train", "valid", "train"]
    first, last = (Counter(splits[id] for id in part)["train"] for part in (ids[:2_500], ids[2_500:]))
    assert abs(first - last) < 200  # not a run of numbers


def test_the_33_names_of_spass_are_28_classes() -> None:
    from featcache.datasets.spass import NAMES

    assert (len(NAMES), len(set(NAMES.values()))) == (33, 28)


@pytest.mark.shared
def test_the_real_esc10_is_whole_and_balanced() -> None:
    from collections import Counter

    root = Path(__file__).parents[3] / "shared" / "data" / "esc10"
    prepared = prepare("esc10", root)
    clips = prepared.manifest.clips
    assert (len(clips), prepared.problems, prepared.manifest.notes) == (400, (), ())
    assert set(Counter((clip.fold, clip.labels) for clip in clips).values()) == {8}
    assert len({clip.group for clip in clips}) == 304
    folds: dict[str | None, set[str | None]] = {}
    for clip in clips:
        folds.setdefault(clip.group, set()).add(clip.fold)
    assert all(len(own) == 1 for own in folds.values())
