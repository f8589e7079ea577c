"""The example of a set from Debian: on a miniature of its folders, and on itself where it is installed."""

import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from featcache.errors import MissingError
from featcache.extraction.extract import extract
from featcache.heads.probing.probe import probe
from featcache.manifest import Manifest, read_manifest, write_manifest
from featcache.plugins import from_file

FILE = Path(__file__).parents[1] / "docs/examples/mandarin_tones.py"
TONES = ("rising", "dipping", "falling")
INSTALLED = Path("/usr/share/gcin-voice/ogg")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return sys.modules[from_file(f"{FILE}:tones", "example").target.__module__]


def test_folders_and_speakers_become_tones_and_splits(example: Any, tmp_path: Path) -> None:
    for number, folder in enumerate(("ㄅㄚ", "ㄅㄚ1", "ㄅㄚ2", "ㄅㄚ3", "ㄅㄚ4")):
        for speaker in ("3.ogg", "5.ogg"):
            (tmp_path / folder).mkdir(exist_ok=True)
            noise = 0.1 * np.random.default_rng(number).standard_normal(4_000)
            soundfile.write(tmp_path / folder / speaker, noise, 8_000)
    clips = example.tones(tmp_path)
    assert [(clip.id, clip.labels, clip.split) for clip in clips[:2]] == [
        ("ㄅㄚ/3.ogg", ("high",), "train"),
        ("ㄅㄚ/5.ogg", ("high",), "test"),
    ]
    assert Counter(clip.labels[0] for clip in clips) == dict.fromkeys(("high", *TONES), 2)
    write_manifest(tmp_path / "tones.csv", clips)
    assert read_manifest(tmp_path / "tones.csv").clips == tuple(clips)
    with pytest.raises(MissingError, match=r"no syllables at .*none; wanted the folder ogg of Debian's"):
        example.tones(tmp_path / "none")


@pytest.mark.skipif(
    not INSTALLED.is_dir(), reason=f"no {INSTALLED}: Debian's gcin-voice is not installed here"
)
def test_the_set_itself_is_extracted_and_probed(example: Any, tmp_path: Path) -> None:
    manifest = Manifest(tuple(example.tones(INSTALLED)), tmp_path / "tones.csv")
    assert Counter(clip.split for clip in manifest) == {"train": 1187, "test": 1147}
    done = extract(manifest, out=tmp_path / "t.zarr", clip_seconds=0.64, skip_failed=True)
    assert (done.encoded, len(done.failed)) == (2333, 1)
    (result,) = probe(
        tmp_path / "t.zarr", manifest, heads="tfmean", out=tmp_path, preset="fast", seeds=1, solved=False
    )
    assert result["valid"]["accuracy"] > 0.6 > 0.4 > result["test"]["accuracy"]
