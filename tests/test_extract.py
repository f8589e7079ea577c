"""Stage one: what is stored is what the encoder says, whatever happened on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featcache.audio.load import load_clip
from featcache.cache import TokenCache
from featcache.encoders import build_encoder
from featcache.errors import InputError, Interrupted, MismatchError
from featcache.extraction.extract import extract
from featcache.extraction.layers import parse_layers
from featcache.records import failed_clips, last_manifest

Make = Callable[..., Path]
SETTINGS: dict[str, Any] = {
    "encoder": "logmel",
    "clip_seconds": 1.0,
    "shard_clips": 4,
    "store_dtype": "float32",
}


def arrays(cache: Path) -> dict[str, bytes]:
    """Every file of the arrays, the ids and the ledger; not the records of runs and how they were planned."""
    return {
        str(file.relative_to(cache)): file.read_bytes()
        for file in sorted(cache.rglob("*"))
        if file.is_file()
        and file.parent.name != "plan"
        and file.name not in ("runs.jsonl", "failed.jsonl", "lock")
    }


def tokens(cache: Path) -> dict[str, np.ndarray[Any, Any]]:
    store = TokenCache.open(cache)
    return {name: np.array(store[row]) for row, name in enumerate(store.ids)}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded, as they are."""
    from featcache.audio import mixup

    opened: list[Path] = []

    def load(path: Path, **rest: Any) -> Any:
        opened.append(path)
        return load_clip(path, **rest)

    monkeypatch.setattr(mixup, "load_clip", load)
    return opened


def test_the_cache_holds_what_the_encoder_says_of_each_clip(make_manifest: Make, tmp_path: Path) -> None:
    done = extract(make_manifest(9), out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.clips, done.encoded, done.present, done.failed) == (9, 9, 0, {})
    encoder = build_encoder("logmel", clip_seconds=1.0)
    stored = tokens(tmp_path / "c.zarr")
    assert list(stored) == [f"audio/{index}.wav" for index in range(9)]
    for name, found in stored.items():
        waveform = load_clip(tmp_path / name, sample_rate=16_000).waveform
        expected = encoder(torch.stack(encoder.frontend([waveform])), (0,)).tokens[0][0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (3, 4), (64, 2)])
def test_tokens_do_not_depend_on_batch_size_or_workers(
    make_manifest: Make, tmp_path: Path, batch_size: int, workers: int
) -> None:
    manifest = make_manifest(9)
    extract(manifest, out=tmp_path / "a.zarr", batch_size=4, workers=1, **SETTINGS)
    extract(manifest, out=tmp_path / "b.zarr", batch_size=batch_size, workers=workers, **SETTINGS)
    first, second = tokens(tmp_path / "a.zarr"), tokens(tmp_path / "b.zarr")
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-5)


def test_a_larger_manifest_decodes_only_what_is_new(
    make_manifest: Make, tmp_path: Path, decoded: list[Path]
) -> None:
    extract(make_manifest(6), out=tmp_path / "c.zarr", **SETTINGS)
    before = tokens(tmp_path / "c.zarr")
    decoded.clear()
    done = extract(make_manifest(10), out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, done.present, done.canaries) == (4, 6, 3)
    assert len(decoded) == 4 + 3
    after = tokens(tmp_path / "c.zarr")
    assert len(after) == 10
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_repeat_decodes_canaries_alone_and_changes_nothing(
    make_manifest: Make, tmp_path: Path, decoded: list[Path]
) -> None:
    manifest = make_manifest(9)
    extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    before = arrays(tmp_path / "c.zarr")
    decoded.clear()
    done = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, done.present, len(decoded)) == (0, 9, 3)
    assert arrays(tmp_path / "c.zarr") == before


def test_moved_and_renamed_audio_is_found_by_content(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(4)
    extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    (tmp_path / "audio").rename(tmp_path / "elsewhere")
    moved = tmp_path / "moved.csv"
    moved.write_text(manifest.read_text().replace("audio/", "elsewhere/"))
    done = extract(moved, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, done.present) == (0, 4)


def test_the_same_audio_twice_is_stored_once(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(4)
    (tmp_path / "copy.wav").write_bytes((tmp_path / "audio/0.wav").read_bytes())
    manifest.write_text(manifest.read_text() + "copy.wav,hum,train\n")
    done = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.clips, done.encoded, done.present) == (5, 4, 1)


def test_a_clip_that_cannot_be_decoded_is_listed_and_never_a_row(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(6)
    (tmp_path / "audio/2.wav").write_bytes(b"")
    (tmp_path / "audio/4.wav").write_bytes(b"no audio")
    done = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, list(done.failed)) == (4, ["audio/2.wav", "audio/4.wav"])
    listed = failed_clips(tmp_path / "c.zarr")
    assert "is empty" in listed["audio/2.wav"]
    assert "cannot be read" in listed["audio/4.wav"]
    assert len(tokens(tmp_path / "c.zarr")) == 4


def test_a_mended_clip_is_added_and_struck_from_the_list(
    make_manifest: Make, make_audio: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(5)
    (tmp_path / "audio/1.wav").write_bytes(b"")
    extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    make_audio("audio/1.wav", seed=1)
    done = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, done.failed) == (1, {})
    assert failed_clips(tmp_path / "c.zarr") == {}
    assert tokens(tmp_path / "c.zarr").keys() == {f"audio/{index}.wav" for index in range(5)}


def test_a_missing_file_stops_the_run_before_it_starts(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(4)
    (tmp_path / "audio/3.wav").unlink()
    with pytest.raises(
        InputError, match=r"1 of 4 clips of .* have no file, first .*audio/3\.wav.*skip_failed"
    ):
        extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert not (tmp_path / "c.zarr").exists()
    done = extract(manifest, out=tmp_path / "c.zarr", skip_failed=True, **SETTINGS)
    assert list(done.failed.items()) == [("audio/3.wav", f"{tmp_path}/audio/3.wav: no such file")]


def test_another_fingerprint_is_refused_by_the_field_that_differs(
    make_manifest: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(4)
    extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    before = arrays(tmp_path / "c.zarr")
    with pytest.raises(MismatchError, match="clip_seconds"):
        extract(manifest, out=tmp_path / "c.zarr", **{**SETTINGS, "clip_seconds": 2.0})
    assert arrays(tmp_path / "c.zarr") == before


def test_a_folder_that_is_no_cache_is_refused_and_left_alone(make_manifest: Make, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not a token cache"):
        extract(make_manifest(4), out=tmp_path / "mine", **SETTINGS)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_canaries_notice_an_encoder_that_says_something_else(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.encoders.logmel import LogMel

    extract(make_manifest(6), out=tmp_path / "c.zarr", **SETTINGS)
    original = LogMel.forward

    def louder(self: LogMel, features: torch.Tensor, layers: Any) -> Any:
        return original(self, features * 1.01, layers)

    monkeypatch.setattr(LogMel, "forward", louder)
    with pytest.raises(
        MismatchError, match=r"no longer encodes to the tokens stored .*difference 0.01, allowed 0.001"
    ):
        extract(make_manifest(8), out=tmp_path / "c.zarr", **SETTINGS)


def test_tokens_are_copied_from_another_cache(
    make_manifest: Make, tmp_path: Path, decoded: list[Path]
) -> None:
    extract(make_manifest(6), out=tmp_path / "old.zarr", **SETTINGS)
    decoded.clear()
    done = extract(make_manifest(9), out=tmp_path / "new.zarr", reuse=[tmp_path / "old.zarr"], **SETTINGS)
    assert (done.reused, done.encoded, done.canaries, len(decoded)) == (6, 3, 3, 6)
    extract(make_manifest(9), out=tmp_path / "fresh.zarr", **SETTINGS)
    expected = tokens(tmp_path / "fresh.zarr")
    found = tokens(tmp_path / "new.zarr")
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_tokens_of_another_fingerprint_are_not_copied(make_manifest: Make, tmp_path: Path) -> None:
    extract(make_manifest(4), out=tmp_path / "old.zarr", **{**SETTINGS, "clip_seconds": 2.0})
    with pytest.raises(MismatchError, match="clip_seconds"):
        extract(make_manifest(4), out=tmp_path / "new.zarr", reuse=[tmp_path / "old.zarr"], **SETTINGS)


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_stopped_run_keeps_its_batches_and_goes_on_to_the_same_values(
    make_manifest: Make, make_audio: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    after: int, unequal: bool,
) -> None:  # fmt: skip
    from featcache.extraction.runner import Runner

    manifest = make_manifest(14)
    (tmp_path / "audio/1.wav").write_bytes(b"no audio")
    for index in range(0, 14, 3 if unequal else 14):
        make_audio(f"audio/{index}.wav", seconds=0.5 if unequal else 1.0, seed=index)
    rest: dict[str, Any] = {**SETTINGS, "batch_size": 2, "shard_clips": 8}
    extract(manifest, out=tmp_path / "whole.zarr", **rest)
    calls, original = [0], Runner.encode

    def stop(self: Runner, features: torch.Tensor) -> Any:
        if calls[0] == after:
            raise KeyboardInterrupt
        calls[0] += 1
        return original(self, features)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "encode", stop)
        with pytest.raises(
            Interrupted, match=r"stopped; \d+ clips are stored in .*run the same command again"
        ):
            extract(manifest, out=tmp_path / "c.zarr", **rest)
    # The first shard has seven clips that decode, so its fourth batch one.
    kept = {0: 0, 3: 6, 6: 11}[after]
    assert len(TokenCache.open(tmp_path / "c.zarr")) == kept
    done = extract(manifest, out=tmp_path / "c.zarr", **rest)
    assert (done.present, done.encoded, done.complete) == (kept, 13 - kept, True)
    assert list(failed_clips(tmp_path / "c.zarr")) == ["audio/1.wav"]
    assert by_clip(tmp_path / "c.zarr") == by_clip(tmp_path / "whole.zarr")


def by_clip(path: Path) -> dict[str, bytes]:
    cache = TokenCache.open(path)
    return {name: cache.tokens([row])[0].numpy().tobytes() for row, name in enumerate(cache.ids)}


@pytest.mark.parametrize("store_dtype", ["float16", "int8"])
def test_a_run_that_is_stopped_again_and_again_ends(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_dtype: str
) -> None:
    from featcache.extraction.batcher import Batcher

    manifest = make_manifest(40)
    rest: dict[str, Any] = {**SETTINGS, "batch_size": 2, "shard_clips": 8, "store_dtype": store_dtype}
    extract(manifest, out=tmp_path / "whole.zarr", **rest)
    original, calls = Batcher.push, [0]

    def push(self: Batcher[Any], item: Any, waveform: torch.Tensor) -> None:
        calls[0] += 1
        if calls[0] % 15 == 0:
            raise KeyboardInterrupt
        original(self, item, waveform)

    monkeypatch.setattr(Batcher, "push", push)
    stored = [0]
    while len(stored) < 20:
        try:
            extract(manifest, out=tmp_path / "c.zarr", **rest)
            break
        except Interrupted:
            stored.append(len(TokenCache.open(tmp_path / "c.zarr")))
    assert len(stored) > 3
    assert stored == sorted(stored)
    assert by_clip(tmp_path / "c.zarr") == by_clip(tmp_path / "whole.zarr")


def test_clips_of_unequal_length_go_on_to_the_same_bytes(
    make_manifest: Make, make_audio: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(12)
    for index in range(0, 12, 3):
        make_audio(f"audio/{index}.wav", seconds=0.5, seed=index)
    extract(manifest, out=tmp_path / "whole.zarr", batch_size=3, **SETTINGS)
    half = tmp_path / "half.csv"
    half.write_text("\n".join(manifest.read_text().splitlines()[:9]) + "\n")
    extract(half, out=tmp_path / "c.zarr", batch_size=3, **SETTINGS)
    extract(manifest, out=tmp_path / "c.zarr", batch_size=3, **SETTINGS)
    assert arrays(tmp_path / "c.zarr") == arrays(tmp_path / "whole.zarr")


def test_long_clips_are_cut_and_counted_or_windowed(
    make_manifest: Make, make_audio: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(4)
    make_audio("audio/0.wav", seconds=2.5)
    assert extract(manifest, out=tmp_path / "cut.zarr", **SETTINGS).cut == 1
    done = extract(manifest, out=tmp_path / "all.zarr", window_seconds=1.0, **SETTINGS)
    assert (done.cut, done.clips, done.encoded) == (0, 6, 6)
    assert last_manifest(tmp_path / "all.zarr") == tmp_path / "all.zarr" / "windows.csv"
    assert "audio/0.wav@2-2.5" in TokenCache.open(tmp_path / "all.zarr").ids


def test_clips_longer_by_a_trifle_are_not_counted_as_cut(
    make_manifest: Make, make_audio: Make, tmp_path: Path
) -> None:
    manifest = make_manifest(6)
    for index, seconds in enumerate([1.001, 1.0095, 1.011, 2.0, 4.5]):
        make_audio(f"audio/{index}.wav", seconds=seconds)
    done = extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert (done.encoded, done.cut) == (6, 3)
    assert (done.cut_median, done.cut_largest) == (1.0, 3.5)


def test_windows_pass_over_a_damaged_file_and_list_it(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(4)
    (tmp_path / "audio/2.wav").write_bytes(b"no audio")
    done = extract(manifest, out=tmp_path / "c.zarr", window_seconds=0.5, **SETTINGS)
    assert (done.encoded, list(done.failed)) == (6, ["audio/2.wav"])


def test_a_stopped_run_forgets_no_failure_that_it_did_not_come_to(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.audio import mixup

    manifest = make_manifest(4)
    (tmp_path / "audio/3.wav").write_bytes(b"")
    extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)

    def stop(path: Path, **rest: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(mixup, "load_clip", stop)
    with pytest.raises(Interrupted):
        extract(make_manifest(6), out=tmp_path / "c.zarr", **SETTINGS)
    assert list(failed_clips(tmp_path / "c.zarr")) == ["audio/3.wav"]


def test_the_last_manifest_is_remembered(make_manifest: Make, tmp_path: Path) -> None:
    manifest = make_manifest(4)
    extract(manifest, out=tmp_path / "c.zarr", **SETTINGS)
    assert last_manifest(tmp_path / "c.zarr") == manifest


@pytest.mark.parametrize(
    ("layers", "expected"),
    [(None, (12,)), ("all", tuple(range(1, 13))), ("1-3", (1, 2, 3)), ("12,6", (6, 12)), ([3, 1], (1, 3))],
)
def test_layers_are_understood(layers: Any, expected: tuple[int, ...]) -> None:
    assert parse_layers(layers, 12) == expected


@pytest.mark.parametrize("layers", ["0", "13", "1-13", "last", "", "3-1"])
def test_layers_that_are_not_there_are_refused(layers: str) -> None:
    with pytest.raises(InputError, match="layers"):
        parse_layers(layers, 12)


def test_an_unknown_device_is_one_line(make_manifest: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"device 'tpu9' cannot be used here"):
        extract(make_manifest(4), out=tmp_path / "c.zarr", device="tpu9", **SETTINGS)
