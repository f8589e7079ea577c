"""Augmented variants of train clips: drawn by seed, stored beside the clips, never where they would leak."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from featcache.audio.mixup import decode_clip
from featcache.cache import TokenCache
from featcache.cli.main import featcache
from featcache.encoders import build_encoder
from featcache.errors import AudioError, InputError, Interrupted, MismatchError
from featcache.extraction.extract import extract
from featcache.extraction.shards import Shards
from featcache.heads.data.tasks import questions
from featcache.manifest import Clip, Manifest, load_manifest, write_manifest
from featcache.manifest.fewshot import few_shot
from featcache.manifest.variants import Mixup, with_variants
from featcache.records import failed_clips

Make = Callable[..., Path]
SETTINGS: dict[str, Any] = {
    "encoder": "logmel", "clip_seconds": 0.5, "shard_clips": 4, "batch_size": 2, "variants": 2,
    "device": "cpu",
}  # fmt: skip
RATE = 16_000


def many(count: int) -> tuple[Manifest, list[bytes]]:
    clips = [
        Clip(id=f"{n}", path=Path(f"{n}.wav"), labels=(f"l{n % 7}",), split="train") for n in range(count)
    ]
    return Manifest(tuple(clips), Path("m.csv")), [n.to_bytes(16, "big") for n in range(count)]


def files(cache: Path) -> dict[str, bytes]:
    """Every file but the times of runs."""
    found = {str(file.relative_to(cache)): file for file in cache.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if name != "runs.jsonl"}


def mixed(clip: Clip, by_id: dict[str, Clip]) -> np.ndarray[Any, Any]:
    """The rules written out: each source under the level of what is there, turned round, repeated or cut."""
    wave = soundfile.read(clip.path)[0]
    assert clip.variant is not None
    for source in clip.variant.sources:
        other = soundfile.read(by_id[source.id].path)[0]
        other = np.roll(other, round(source.shift * len(other)))
        other = np.resize(other, len(wave))
        level = np.sqrt((wave**2).mean()) / 10 ** (source.snr_db / 20)
        wave = wave + level / np.sqrt((other**2).mean()) * other
    return wave


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of 12 clips (one of them shorter) and its cache with variants."""
    home = tmp_path_factory.mktemp("variants")
    lines = ["path,labels,split"]
    for number in range(12):
        noise = np.random.default_rng(number).standard_normal(4000 if number == 4 else 8000)
        soundfile.write(home / f"{number}.wav", 0.1 * noise, RATE)
        split = ("train", "train", "valid", "test")[number % 4]
        lines.append(f"{number}.wav,{('hum', 'hiss')[number // 4 % 2]},{split}")
    (home / "m.csv").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEATCACHE_HOME", str(home / "home"))
        extract(home / "m.csv", out=home / "v.zarr", **SETTINGS)
    return home / "m.csv", home / "v.zarr"


def test_variants_stand_beside_the_train_clips_and_nowhere_else(made: tuple[Path, Path]) -> None:
    plain, own = load_manifest(made[0]), load_manifest(made[1] / "clips.csv")
    assert own.clips[:12] == tuple(plain.clips)
    by_id = {clip.id: clip for clip in plain}
    train = [clip.id for clip in plain if clip.split == "train"]
    assert [clip.id for clip in own.clips[12:]] == [f"{id}#{number}" for id in train for number in (1, 2)]
    assert {clip.split for clip in own.clips[12:]} == {"train"}
    for clip in own.clips[12:]:
        assert clip.variant is not None
        assert clip.variant.ids <= set(train)
        union = {label for id in clip.variant.ids for label in by_id[id].labels}
        assert (set(clip.labels), clip.path) == (union, by_id[clip.variant.of].path)


def test_a_variant_has_the_tokens_of_its_clips_mixed_by_hand(made: tuple[Path, Path]) -> None:
    cache, own = TokenCache.open(made[1]), load_manifest(made[1] / "clips.csv")
    by_id, rows = {clip.id: clip for clip in own}, {id: row for row, id in enumerate(cache.ids)}
    encoder = build_encoder("logmel", clip_seconds=0.5)
    several = [clip for clip in own if clip.variant and clip.variant.sources]
    assert {len(clip.variant.sources) for clip in several if clip.variant} == {1, 2, 3}
    assert any("4.wav" in clip.variant.ids for clip in several if clip.variant)  # of another length
    for clip in several:
        wave = torch.from_numpy(mixed(clip, by_id)).float()
        tokens = encoder(torch.stack(encoder.frontend([wave])), [0]).tokens[0][0]
        torch.testing.assert_close(cache.tokens([rows[clip.id]])[0].float(), tokens, atol=2e-3, rtol=1e-3)


def test_the_clips_themselves_are_stored_as_without_variants(made: tuple[Path, Path], tmp_path: Path) -> None:
    extract(made[0], out=tmp_path / "plain.zarr", **{**SETTINGS, "variants": None})
    plain, own = TokenCache.open(tmp_path / "plain.zarr"), TokenCache.open(made[1])
    assert torch.equal(plain.tokens(range(12)), own.tokens(range(12)))
    with pytest.raises(MismatchError, match="variants"):  # and may not be taken for it
        extract(made[0], out=tmp_path / "plain.zarr", **SETTINGS)
    with pytest.raises(MismatchError, match="variants"):
        extract(made[0], out=made[1], **SETTINGS, variant_seed=1)


def test_many_writers_and_an_interrupted_one_write_the_same_bytes(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in (1, 0):
        extract(made[0], out=tmp_path / "two.zarr", writer=f"{rank}/2", **SETTINGS)
    assert files(tmp_path / "two.zarr") == files(made[1])
    real, calls = Shards._push, [0]

    def push(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 14:  # in the first shard of variants
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Shards, "_push", push)
    with pytest.raises(Interrupted):
        extract(made[0], out=tmp_path / "cut.zarr", **SETTINGS)
    done = extract(made[0], out=tmp_path / "cut.zarr", **SETTINGS)
    assert (done.present > 0, done.canaries) == (True, 3)
    assert files(tmp_path / "cut.zarr") == files(made[1])


def test_the_draw_follows_the_rules() -> None:
    manifest, keys = many(400)
    own = with_variants(manifest, keys, Mixup(variants=5)).clips[400:]
    sources = [clip.variant.sources for clip in own if clip.variant]
    assert len(own) == len(sources) == 2000
    assert abs(np.mean([len(each) > 0 for each in sources]) - 0.9) < 0.02
    counts = Counter(len(each) for each in sources if each)
    assert all(abs(counts[number] / 1800 - 1 / 3) < 0.04 for number in (1, 2, 3))
    assert sum(counts.values()) == sum(counts[number] for number in (1, 2, 3))
    for clip, each in zip(own, sources, strict=True):
        assert clip.variant is not None
        ids = [clip.variant.of, *(source.id for source in each)]
        assert len(set(ids)) == len(ids)  # all different
        assert len({source.snr_db for source in each}) <= 1
        assert all(2 <= source.snr_db <= 30 and 0 <= source.shift < 1 for source in each)
    levels = [each[0].snr_db for each in sources if each]
    assert abs(np.mean(levels) - 16) < 0.8
    shifts = [source.shift for each in sources for source in each]
    assert abs(np.mean(shifts) - 0.5) < 0.02


def test_a_seed_draws_the_same_whatever_the_order_of_rows() -> None:
    manifest, keys = many(50)
    turned = Manifest(manifest.clips[::-1], manifest.path)
    first = with_variants(manifest, keys, Mixup(variants=2, seed=3))
    again = with_variants(turned, keys[::-1], Mixup(variants=2, seed=3))
    other = with_variants(manifest, keys, Mixup(variants=2, seed=4))
    assert set(first.clips) == set(again.clips)
    assert set(first.clips) != set(other.clips)


def test_what_is_not_mixed_is_stored_once(make_manifest: Make, tmp_path: Path) -> None:
    done = extract(make_manifest(8, seconds=0.5), out=tmp_path / "c.zarr", **SETTINGS, mixup=0)
    assert (done.clips, done.encoded) == (16, 8)
    assert len(load_manifest(tmp_path / "c.zarr/clips.csv")) == 16


def test_a_manifest_of_variants_is_read_as_it_was_written(made: tuple[Path, Path], tmp_path: Path) -> None:
    own = load_manifest(made[1] / "clips.csv")
    write_manifest(tmp_path / "again.csv", own.clips)
    again = load_manifest(tmp_path / "again.csv")
    assert (again.clips, again.digest) == (own.clips, own.digest)
    bare = Manifest(tuple(clip for clip in own if not clip.variant), own.path)
    assert bare.digest == load_manifest(made[0]).digest
    assert not any(clip.variant for clip in few_shot(own, 2, seed=0).clips)


def test_a_held_out_clip_is_in_no_variant_that_trains(tmp_path: Path) -> None:
    manifest, keys = many(60)
    tests = [Clip(id=f"t{n}", path=Path(f"t{n}.wav"), labels=(f"l{n % 7}",), split="test") for n in range(7)]
    own = with_variants(
        Manifest((*manifest.clips, *tests), Path("m.csv")), [*keys, *[None] * 7], Mixup(variants=3)
    )
    lines: list[str] = []
    (question,) = questions(own, [(clip, row) for row, clip in enumerate(own)], name="m", say=lines.append)
    task = question.task
    held, train = set(task.valid.ids), set(task.train.ids)
    assert (held <= {clip.id for clip in manifest}, len(held)) == (True, 7)
    assert len(question.test) == 7
    used = [clip for clip in own if clip.variant and clip.id in train]
    assert used
    assert all(clip.variant.ids.isdisjoint(held) for clip in used if clip.variant)
    left = [clip for clip in own if clip.variant and clip.id not in train]
    assert all(clip.variant.ids & held for clip in left if clip.variant)
    said = f"m: {len(used)} augmented variants of train clips train too; {len(left)} are left out, because"
    assert any(line.startswith(said) for line in lines)
    few = questions(
        own, [(clip, row) for row, clip in enumerate(own)], name="m", say=lines.append, shots=[2, "all"]
    )[0].task
    drawn = {id for id in few.train.ids if "#" not in id}
    assert len(drawn) == 14
    assert all(clip.variant.ids <= drawn for clip in own if clip.variant and clip.id in few.train.ids)


def test_the_command_probes_what_it_stored(make_manifest: Make, tmp_path: Path) -> None:
    run = CliRunner()
    words = ["extract", str(make_manifest(32, seconds=0.2)), "--clip-seconds", "0.2", "--variants", "2"]
    done = run.invoke(
        featcache, [*words, "--json", "--out", str(tmp_path / "c.zarr"), "--mixup-snr", "5", "5"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["clips"] == 64
    assert '""snr_db"": 5.0' in (tmp_path / "c.zarr/clips.csv").read_text()
    words = [
        "probe",
        str(tmp_path / "c.zarr"),
        "--head",
        "linear",
        "--no-solved",
        "--epochs",
        "2",
        "--seeds",
        "1",
    ]
    done = run.invoke(featcache, [*words, "--out", str(tmp_path / "r"), "--json", "--batch-size", "4"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["clips"] == {"train": 48, "valid": 8, "test": 8}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": 0}, r"variants is 0; wanted a whole number, 1 or more"),
        ({"mixup": 1.5}, r"mixup is 1.5; wanted a share from 0 to 1"),
        ({"mixup_snr": (9, 3)}, r"mixup_snr is \(9, 3\); wanted two numbers, the lower first"),
        ({"mixup_sources": 0}, r"mixup_sources is 0"),
    ],
)
def test_values_that_variants_cannot_take_are_refused(
    changes: dict[str, Any], message: str, make_manifest: Make, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        extract(make_manifest(4), out=tmp_path / "c.zarr", **{**SETTINGS, **changes})
    assert not (tmp_path / "c.zarr").exists()


def test_without_train_clips_or_with_a_bad_cell_the_line_says_so(make_audio: Make, tmp_path: Path) -> None:
    make_audio("a.wav")
    (tmp_path / "bare.csv").write_text("path,labels\na.wav,x\n")
    with pytest.raises(InputError, match=r"variants mix train clips, and .*bare.csv has 0 that can be read"):
        extract(tmp_path / "bare.csv", out=tmp_path / "c.zarr", **SETTINGS)
    for cell in ("five", '"{""of"": ""a""}"', '"{""of"": ""a"", ""sources"": [{""id"": ""b""}]}"'):
        (tmp_path / "bad.csv").write_text(f"path,labels,variant\na.wav,x,{cell}\n")
        with pytest.raises(
            InputError, match=r"bad.csv line 2: variant is .*; wanted what 'featcache extract"
        ):
            load_manifest(tmp_path / "bad.csv")


def test_copies_of_a_clip_that_cannot_be_decoded_fail_with_it(make_manifest: Make, tmp_path: Path) -> None:
    path = make_manifest(8, seconds=0.5)
    (tmp_path / "audio/0.wav").write_bytes(b"no audio")
    done = extract(path, out=tmp_path / "c.zarr", **SETTINGS, mixup=0)
    assert list(done.failed) == [f"audio/0.wav{which}" for which in ("", "#1", "#2")]
    assert failed_clips(tmp_path / "c.zarr") == done.failed


def test_a_source_that_cannot_be_decoded_fails_its_variants_alone(
    make_manifest: Make, tmp_path: Path
) -> None:
    path = make_manifest(8, seconds=0.5)
    (tmp_path / "audio/0.wav").write_bytes(b"no audio")
    done = extract(path, out=tmp_path / "c.zarr", **SETTINGS)
    own = load_manifest(tmp_path / "c.zarr/clips.csv")
    touched = {
        clip.id
        for clip in own
        if clip.id == "audio/0.wav" or (clip.variant and "audio/0.wav" in clip.variant.ids)
    }
    assert set(done.failed) == touched
    assert any("is mixed with 'audio/0.wav': " in reason for reason in done.failed.values())
    own = load_manifest(tmp_path / "c.zarr/clips.csv")
    (lone, *_) = (clip for clip in own if clip.variant and clip.variant.sources and clip.id not in touched)
    with pytest.raises(AudioError, match="which the manifest does not list"):
        decode_clip(lone, {}, sample_rate=RATE, max_seconds=1.0)
