"""Few-shot draws: nested, repeatable, single-label, first one clip of each recording."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from featcache.cli.main import featcache
from featcache.errors import InputError
from featcache.manifest import Manifest, read_manifest
from featcache.manifest.fewshot import few_shot


@pytest.fixture
def birds(tmp_path: Path) -> Manifest:
    """Three species, in 6, 2 and 1 recordings; one more is too long, one of two species."""
    lines = ["path,labels,id,start,end,split,group"]

    def record(name: str, labels: str, windows: int, seconds: float = 3.0) -> None:
        soundfile.write(tmp_path / name, np.zeros(round(seconds * 1000)), 1000)
        for number in range(windows):
            lines.append(f"{name},{labels},{name}@{number},{number},{number + 1},train,{name}")

    for number in range(6):
        record(f"many{number}.wav", "many", 3)
    for number in range(2):
        record(f"some{number}.wav", "some", 3)
    record("one.wav", "one", 1)
    record("long.wav", "one", 3, seconds=21.0)
    record("two.wav", "one;many", 3)
    lines.append("one.wav,one;some,test,0,1,test,")
    (tmp_path / "birds.csv").write_text("\n".join(lines) + "\n")
    return read_manifest(tmp_path / "birds.csv")


def shots(manifest: Manifest, count: int, seed: int = 1) -> list[str]:
    drawn = few_shot(manifest, count, seed=seed).clips
    assert drawn[-1].id == "test"  # other splits stay
    return [clip.id for clip in drawn if clip.split == "train"]


def test_draws_are_nested_repeatable_and_have_no_clip_twice(birds: Manifest) -> None:
    before: set[str] = set()
    for count in (1, 2, 3, 5, 10, 64):
        drawn = shots(birds, count)
        assert drawn == shots(birds, count)
        assert len(set(drawn)) == len(drawn)
        assert before <= set(drawn)
        before = set(drawn)
    assert any(shots(birds, 1, seed) != shots(birds, 1) for seed in range(2, 6))


def test_one_clip_of_each_recording_comes_first(birds: Manifest) -> None:
    for seed in range(5):
        recordings = Counter(id.partition("@")[0] for id in shots(birds, 6, seed) if id.startswith("many"))
        assert recordings == {f"many{number}.wav": 1 for number in range(6)}
        of_some = Counter(id.partition("@")[0] for id in shots(birds, 4, seed) if id.startswith("some"))
        assert sorted(of_some.values()) in ([1, 3], [2, 2])  # both first, then two of the others


def test_clips_of_two_labels_and_long_recordings_are_not_drawn(birds: Manifest) -> None:
    drawn = few_shot(birds, 64, seed=0)
    assert {clip.id for clip in drawn.clips if clip.split == "train" and "one" in clip.labels} == {
        "one.wav@0"
    }
    assert drawn.short == {"many": 18, "one": 1, "some": 6}
    assert few_shot(birds, 3, seed=0).short == {"one": 1}
    assert few_shot(birds, 3, seed=0, max_seconds=30).short == {}


def test_what_cannot_be_drawn_from_is_refused(birds: Manifest) -> None:
    with pytest.raises(InputError, match="shots is 0; wanted 1 or more"):
        few_shot(birds, 0, seed=0)
    with pytest.raises(InputError, match=r"has a single label and a recording of at most 1 s; allow longer"):
        few_shot(birds, 1, seed=0, max_seconds=1)
    with pytest.raises(InputError, match="marks no clip as train"):
        few_shot(Manifest(birds.clips[-1:], birds.path), 1, seed=0)


def test_the_command_writes_a_manifest_and_names_short_classes(birds: Manifest, tmp_path: Path) -> None:
    arguments = [
        "fewshot",
        str(birds.path),
        "--shots",
        "2",
        "--seed",
        "1",
        "--out",
        str(tmp_path / "few.csv"),
    ]
    done = CliRunner().invoke(featcache, arguments)
    assert done.exit_code == 0, done.output
    assert "5 train clips of 2 shots, 1 other clips" in done.stdout
    assert "1 classes have fewer: one 1" in done.stderr
    assert [clip.id for clip in read_manifest(tmp_path / "few.csv") if clip.split == "train"] == shots(
        birds, 2
    )
    told = json.loads(CliRunner().invoke(featcache, [*arguments, "--json"]).stdout)
    assert (told["train"], told["short"]) == (5, {"one": 1})
    refused = CliRunner().invoke(featcache, [*arguments, "--max-seconds", "0.5"])
    assert (refused.exit_code, "(--max-seconds)" in refused.stderr) == (2, True)
    assert CliRunner().invoke(featcache, [*arguments, "--max-seconds", "nan"]).exit_code == 2
