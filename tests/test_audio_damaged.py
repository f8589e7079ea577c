"""One bad file is one failed clip with its reason: nothing shorter, no wait, no crash, no memory."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from featcache.audio.container import examine
from featcache.audio.load import LOUDEST, duration, load_clip
from featcache.audio.resample import LARGEST_KERNEL, kernel_size, resample
from featcache.errors import AudioError, InputError
from featcache.extraction.extract import extract
from featcache.manifest import Clip, Manifest, from_folders
from featcache.manifest.windows import window_manifest
from featcache.records import failed_clips

Make = Callable[..., Path]
SETTINGS: dict[str, Any] = {"encoder": "logmel", "clip_seconds": 1.0, "shard_clips": 4}
# Suffix, and how soundfile is to write it where that does not follow.
FORMATS: dict[str, dict[str, str]] = {
    "wav": {}, "float.wav": {"format": "WAV", "subtype": "FLOAT"}, "ima.wav": {"subtype": "IMA_ADPCM"},
    "wavex": {"format": "WAVEX"}, "rf64": {"format": "RF64"}, "rifx": {"format": "WAV", "endian": "BIG"},
    "aiff": {}, "svx": {}, "au": {}, "little.au": {"endian": "LITTLE"}, "w64": {}, "caf": {}, "nist": {},
    "ogg": {}, "opus": {"format": "OGG", "subtype": "OPUS"}, "mp3": {}, "flac": {},
}  # fmt: skip


@pytest.fixture(params=FORMATS)
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    samples = (0.3 * np.sin(np.arange(80_000) * 0.1) + 0.05 * random.standard_normal(80_000)).astype("f")
    path = tmp_path / f"a.{request.param}"
    soundfile.write(path, samples, 16_000, **FORMATS[request.param])
    return path


def test_a_file_that_was_cut_off_is_refused_wherever_the_cut_is(sound: Path) -> None:
    whole = sound.read_bytes()
    assert examine(sound).missing is None
    length = len(load_clip(sound, sample_rate=16_000).waveform)
    for share in (0.1, 0.3, 0.5, 0.77, 0.9, 0.99):
        sound.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(AudioError, match=r"was cut off \(|decoding stopped|cannot be read"):
            load_clip(sound, sample_rate=16_000)
    sound.write_bytes(whole + b"junk" * 10_000)
    assert examine(sound).missing is None
    if sound.suffix not in (".svx", ".w64", ".nist"):  # of which libsndfile reads whatever follows
        assert len(load_clip(sound, sample_rate=16_000).waveform) == length


@pytest.mark.parametrize("sound", ["wav", "aiff", "au", "w64", "ogg", "mp3"], indirect=True)
def test_what_is_there_of_a_file_that_was_cut_off_can_be_asked_for(sound: Path) -> None:
    sound.write_bytes(sound.read_bytes()[: sound.stat().st_size // 2])
    waveform = load_clip(sound, sample_rate=16_000, accept_truncated=True).waveform
    assert 20_000 < len(waveform) < 60_000
    assert duration(sound, accept_truncated=True) > 1


@pytest.mark.parametrize("sound", ["ogg", "opus"], indirect=True)
def test_an_ogg_file_of_which_pages_are_missing_is_refused(sound: Path) -> None:
    data = sound.read_bytes()
    second = data.index(b"OggS", len(data) // 2)
    first = data.rindex(b"OggS", 0, second)
    sound.write_bytes(data[:first] + data[second:])
    with pytest.raises(AudioError, match=r"was cut off \(page \d+ is missing\)"):
        load_clip(sound, sample_rate=16_000)


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_recording_of_unknown_length_is_taken_to_its_end(make_audio: Make, length: int) -> None:
    path = make_audio("a.wav")
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", length)
    data[4:8] = struct.pack("<I", length)
    path.write_bytes(data)
    assert len(load_clip(path, sample_rate=16_000).waveform) == 16_000


def test_files_that_were_cut_off_are_listed_as_failed_or_taken_when_asked_for(
    make_manifest: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(4, seconds=2.0)
    for index in (1, 2):
        path = tmp_path / f"audio/{index}.wav"
        path.write_bytes(path.read_bytes()[:40_000])
    for windows in (None, 0.5):
        out = tmp_path / f"{windows}.zarr"
        done = extract(manifest, out=out, window_seconds=windows, **SETTINGS)
        assert list(done.failed) == ["audio/1.wav", "audio/2.wav"]
        assert "was cut off" in failed_clips(out)["audio/1.wav"]
        again = extract(manifest, out=out, window_seconds=windows, accept_truncated=True, **SETTINGS)
        assert again.failed == failed_clips(out) == {}
        assert again.encoded > 0


@pytest.mark.parametrize("rate", [44_101, 22_051, 48_001, 15_999, 99_991])
def test_any_rate_is_resampled_in_bounded_memory(make_audio: Make, rate: int) -> None:
    assert kernel_size(rate, 16_000) > LARGEST_KERNEL
    path = make_audio("a.wav", rate=rate, seconds=1.0)
    waveform = load_clip(path, sample_rate=16_000).waveform
    assert len(waveform) == 16_000
    raw = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(rate) / rate)
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)
    difference = resample(tone, rate, 16_000)[200:-200] - expected[200:-200]
    assert float(difference.abs().max()) < 1e-3
    assert len(resample(raw[:1], rate, 16_000)) == -(-16_000 // rate)


def test_the_rates_of_ordinary_files_are_resampled_as_ever() -> None:
    ordinary = [8_000, 11_025, 12_000, 22_050, 24_000, 32_000, 44_056, 44_100, 47_952, 48_000, 88_200, 96_000,
                192_000, 250_000, 256_000, 384_000, 500_000]  # fmt: skip
    for wanted in (16_000, 32_000, 44_100, 48_000):
        assert all(kernel_size(rate, wanted) <= LARGEST_KERNEL for rate in ordinary if rate != 44_056)
    assert kernel_size(44_056, 16_000) <= LARGEST_KERNEL


def test_a_clip_decoded_in_blocks_equals_one_decoded_at_once(
    make_audio: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.audio import recording

    path = make_audio("a.wav", channels=3)
    expected = load_clip(path, sample_rate=16_000, start=0.1).waveform
    monkeypatch.setattr(recording, "_BLOCK", 3 * 999)
    assert torch.equal(load_clip(path, sample_rate=16_000, start=0.1).waveform, expected)


@pytest.mark.parametrize("loud", [1e20, -1e10, 1e300])
def test_samples_beyond_all_reason_are_refused(tmp_path: Path, loud: float) -> None:
    samples = np.zeros(16_000)
    samples[5] = loud
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="DOUBLE")
    with pytest.raises(AudioError, match=r"beyond 2\.1e\+09 \(full scale is 1\)|infinite samples"):
        load_clip(tmp_path / "a.wav", sample_rate=16_000)


def test_the_loudest_samples_that_are_taken_have_finite_tokens(tmp_path: Path) -> None:
    samples = LOUDEST * np.sign(np.sin(np.arange(16_000)))
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    (tmp_path / "m.csv").write_text("path,labels\na.wav,x\n")
    assert extract(tmp_path / "m.csv", out=tmp_path / "c.zarr", **SETTINGS).encoded == 1


def claim(path: Path, samples: int) -> Path:
    """Give a FLAC file a header that claims so many samples (36 bits)."""
    data = bytearray(path.read_bytes())
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples
    data[18:26] = packed.to_bytes(8, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("samples", [2**36 - 1, 2**30, 20_000])
def test_a_header_that_claims_more_than_there_is_costs_nothing(make_audio: Make, samples: int) -> None:
    path = claim(make_audio("a.flac"), samples)
    message = "which no file of .* bytes holds|decoding stopped|cannot be read|that are decoded at once"
    with pytest.raises(AudioError, match=message):
        load_clip(path, sample_rate=16_000)
    windows = window_manifest(Manifest((Clip(id="a", path=path),), path), 1.0)
    assert len(windows) < 100_000


def test_more_windows_than_memory_holds_are_refused(make_audio: Make) -> None:
    path = make_audio("a.wav", seconds=1)
    for clip in (Clip(id="a", path=path), Clip(id="a", path=path, end=1e12)):
        clips = Manifest((clip,), path)
        if clip.end is None:
            with pytest.raises(InputError, match=r"clip 'a' of 1 s would be more than 1,000,000 windows"):
                window_manifest(clips, 0.001, 1e-7)
        else:
            assert window_manifest(clips, 0.001).clips == (clip,)


@pytest.fixture
def strange(make_manifest: Make, tmp_path: Path) -> tuple[list[Clip], dict[str, str]]:
    """Clips that cannot be opened, and a word of the reason of each."""
    make_manifest(2)
    os.mkfifo(tmp_path / "pipe.wav")
    latin = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    latin.write_bytes((tmp_path / "audio/0.wav").read_bytes())
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "data.raw").write_bytes(b"\0" * 4000)
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    reasons = {
        "pipe.wav": "not a regular file", latin.name: "is not UTF-8", "folder.wav": "is a folder",
        "x" * 300 + ".wav": "file name too long", "nul\0.wav": "NUL", "loop.wav": "symbolic links",
        "/dev/zero": "not a regular file", "data.raw": "cannot be read as audio",
    }  # fmt: skip
    clips = [Clip(id=f"{index}", path=tmp_path / name) for index, name in enumerate(reasons)]
    return clips, {f"{index}": reason for index, reason in enumerate(reasons.values())}


def test_what_cannot_be_opened_is_a_failed_clip_with_its_reason(
    strange: tuple[list[Clip], dict[str, str]], tmp_path: Path
) -> None:
    clips, reasons = strange
    good = [Clip(id="good", path=tmp_path / "audio/0.wav")]
    manifest = Manifest((*clips, *good), tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"7 of 9 clips .* first .*pipe\.wav \(is a pipe"):
        extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    for windows in (None, 0.5):
        out = tmp_path / f"{windows}.zarr"
        done = extract(manifest, out=out, window_seconds=windows, skip_failed=True, **SETTINGS)
        assert done.encoded == (2 if windows else 1)
        assert done.failed.keys() == failed_clips(out).keys() == reasons.keys()
        for name, reason in reasons.items():
            assert reason in done.failed[name], (done.failed[name], reason)
            assert "\n" not in done.failed[name]


def test_class_folders_lose_no_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    os.mkfifo(tmp_path / "dog/pipe.wav")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/dog/caf\xe9.wav")).touch()
    (tmp_path / "dog/gone.wav").symlink_to(tmp_path / "nowhere.wav")
    assert [clip.id for clip in from_folders(tmp_path)] == [
        *("dog/caf\\udce9.wav", "dog/gone.wav", "dog/pipe.wav"),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "dog/deep").mkdir(parents=True)
    (tmp_path / "dog/deep").chmod(0)
    with pytest.raises(InputError, match=r"the folder .*deep cannot be read"):
        from_folders(tmp_path)
    (tmp_path / "dog/deep").chmod(0o700)


def test_a_folder_that_fails_to_be_listed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dog/deep").mkdir(parents=True)
    original = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"the folder .*deep cannot be read \(permission denied\)"):
        from_folders(tmp_path)
