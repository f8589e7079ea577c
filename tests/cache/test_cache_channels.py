"""Channels of unequal size: none is lost for another's sake, and what is lost of each is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from click.testing import CliRunner
from torch import Tensor

from featcache.cache import CacheLayout, CacheWriter, TokenCache
from featcache.cache.convert import convert_cache
from featcache.cache.format.channels import channel_errors, channel_scale, flattened, outliers
from featcache.cache.format.quantize import round_trip
from featcache.cache.verify import verify_cache
from featcache.cli.main import featcache
from featcache.errors import CacheError, InputError, MismatchError

LOUD = 5
N, D, CLIPS = 20, 64, 20


def tokens(clip: int, times: float = 300.0) -> Tensor:
    """(N, D): one channel is much larger than the others."""
    made = torch.randn(N, D, generator=torch.Generator().manual_seed(clip))
    made[:, LOUD] *= times
    return made


def layout(**changes: Any) -> CacheLayout:
    settings: dict[str, Any] = {
        "fingerprint": {"encoder": "fake"}, "layers": (12,), "num_tokens": N, "dim": D, "grid": (2, N // 2),
        "has_cls": False, "shard_clips": 8,
    }  # fmt: skip
    return CacheLayout(**settings | changes)


def write(path: Path, times: float = 300.0, clips: int = CLIPS, **changes: Any) -> TokenCache:
    with CacheWriter.create_or_open(path, layout(**changes)) as writer:
        for clip in range(clips):
            key, valid = clip.to_bytes(16, "big"), N if clip % 3 else N // 2
            if key not in writer.done_keys:
                writer.add(f"{clip}", key, {12: tokens(clip, times)[:valid]}, None, valid)
    return TokenCache.open(path)


def valid_tokens(cache: TokenCache) -> np.ndarray[Any, Any]:
    every = cache.tokens(range(len(cache))).float()
    return every[cache.mask(range(len(cache)))].numpy()


def given(times: float = 300.0) -> np.ndarray[Any, Any]:
    return torch.cat([tokens(clip, times)[: N if clip % 3 else N // 2] for clip in range(CLIPS)]).numpy()


@pytest.mark.parametrize(("dtype", "most"), [("int8", 0.02), ("int4", 0.3)])
def test_a_channel_at_300_times_the_others_erases_none_of_them(
    tmp_path: Path, dtype: str, most: float
) -> None:
    errors = channel_errors(given(), valid_tokens(write(tmp_path / "a.zarr", dtype=dtype)))
    assert errors.max() < most
    # With one scale a token they are lost, and the cosine of whole tokens does not tell.
    plain = round_trip(torch.from_numpy(given()), dtype).numpy()
    assert np.delete(channel_errors(given(), plain), LOUD).min() > 5 * np.median(errors)
    lengths = np.linalg.norm(plain, axis=1) * np.linalg.norm(given(), axis=1)
    assert np.median((plain * given()).sum(axis=1) / lengths) > 0.99


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_no_token_saturates_however_it_differs_from_the_first_clips(tmp_path: Path, dtype: str) -> None:
    with CacheWriter.create_or_open(tmp_path / "a.zarr", layout(dtype=dtype)) as writer:
        for clip in range(CLIPS):
            found = tokens(clip)
            if clip == CLIPS - 1:
                found[:, 7] = 5000.0  # a quiet channel cries out
            writer.add(f"{clip}", clip.to_bytes(16, "big"), {12: found}, None, N)
    steps = {"int8": 127, "int4": 7}[dtype]
    stored = TokenCache.open(tmp_path / "a.zarr").tokens([CLIPS - 1])[0, :, 7]
    assert ((stored - 5000).abs() <= 5000 * 0.5 / steps * 1.001).all()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_documented_formula_gives_the_tokens_from_zarr_alone(tmp_path: Path, dtype: str) -> None:
    cache = write(tmp_path / "a.zarr", dtype=dtype)
    group = zarr.open_group(cache.path, mode="r")
    integers = np.asarray(group["tokens/12"])
    if dtype == "int4":
        low, high = integers & 15, integers >> 4
        integers = np.stack([low, high], axis=-1).reshape(*integers.shape[:2], -1).astype(np.int16)
        integers = np.where(integers > 7, integers - 16, integers)
    scale, channels = np.asarray(group["scale/12"]), np.asarray(group["channel_scale/12"])
    assert channels.shape == (D,)
    assert channels[LOUD] > 100
    np.testing.assert_array_equal(integers * scale[..., None] * channels, cache.tokens(range(CLIPS)).numpy())


def test_channels_of_one_size_keep_a_scale_of_one() -> None:
    assert (channel_scale(np.array([1.0, 3.9, 0.1, 1.0])) == 1).all()
    assert channel_scale(np.array([1.0, 8.0, 0.0, 1.0, 0.5])).tolist() == [1.0, 8.0, 1 / 16, 1.0, 0.5]
    assert (channel_scale(np.zeros(4)) == 1).all()


def test_a_later_run_keeps_the_scales_of_the_first(tmp_path: Path, clips: Any) -> None:
    write(tmp_path / "a.zarr", clips=16, dtype="int8")
    write(tmp_path / "a.zarr", dtype="int8")
    write(tmp_path / "b.zarr", dtype="int8")
    assert clips.bytes_of(tmp_path / "a.zarr") == clips.bytes_of(tmp_path / "b.zarr")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_statistics_are_those_of_all_valid_tokens(tmp_path: Path, dtype: str) -> None:
    cache = write(tmp_path / "a.zarr", dtype=dtype)
    found, exact = cache.channel_statistics(), given().astype(np.float64)
    assert found is not None
    assert (found[0] == len(exact)).all()
    np.testing.assert_allclose(found[1], exact.mean(axis=0), atol=1e-5 * exact.std(axis=0).max())
    np.testing.assert_allclose(found[3], np.abs(exact).max(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found[2], exact.std(axis=0), rtol=0.5)  # from every eighth token
    assert np.median(found[2] / exact.std(axis=0)) == pytest.approx(1, abs=0.1)
    by_shard = np.asarray(zarr.open_group(cache.path, mode="r")["statistics/12"])
    assert by_shard.shape == (3, 4, D)
    assert by_shard[:, 0, 0].sum() == len(exact)


def test_a_channel_far_from_zero_has_the_right_sd(tmp_path: Path) -> None:
    with CacheWriter.create_or_open(tmp_path / "a.zarr", layout(dtype="float32")) as writer:
        for clip in range(CLIPS):
            found = torch.full((N, D), 4000.0)
            found[::8] += (
                2.0 * (-1) ** torch.arange(len(found[::8]))[:, None]
            )  # the tokens that are looked at
            writer.add(f"{clip}", clip.to_bytes(16, "big"), {12: found}, None, N)
    found = TokenCache.open(tmp_path / "a.zarr").channel_statistics()
    assert found is not None
    np.testing.assert_allclose(found[2], 2.0, rtol=0.1)


def test_info_names_the_outlier_channels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr").path
    output = CliRunner().invoke(featcache, ["cache", "info", str(path)]).output
    assert "layer 12: 1 outlier channels" in output
    assert f" {LOUD} (" in output
    record = json.loads(CliRunner().invoke(featcache, ["cache", "info", str(path), "--json"]).output)
    (loud,) = record["channels"]["12"]["outliers"]
    assert loud["channel"] == LOUD
    assert loud["largest"] == pytest.approx(np.abs(given()[:, LOUD]).max(), rel=1e-3)
    calm = write(tmp_path / "b.zarr", times=1.0).path
    assert "no outlier channels" in CliRunner().invoke(featcache, ["cache", "info", str(calm)]).output


@pytest.mark.parametrize(
    ("dtype", "fits", "offset", "size"),
    [
        ("bfloat16", "float16", 4000.0, 2.0),  # a step of bfloat16 at 4000 is 16
        ("float16", "float32", 30000.0, 2.0),  # a step of float16 there is 16
        ("float16", "bfloat16", 0.0, 1e-8),  # below what float16 can hold
    ],
)
def test_a_dtype_that_would_flatten_channels_is_refused_before_anything_is_stored(
    tmp_path: Path, dtype: str, fits: str, offset: float, size: float
) -> None:
    def found(clip: int) -> Tensor:
        return offset + size * torch.randn(N, D, generator=torch.Generator().manual_seed(clip))

    def fill() -> None:
        with CacheWriter.create_or_open(tmp_path / "a.zarr", layout(dtype=dtype)) as writer:
            for clip in range(CLIPS):
                writer.add(f"{clip}", clip.to_bytes(16, "big"), {12: found(clip)}, None, N)

    message = rf"layer 12: {dtype} would flatten 100% of the channels .*; store it as "
    with pytest.raises(InputError, match=message) as error:
        fill()
    fits_found = str(error.value).rsplit(" ", 1)[1]
    assert len(TokenCache.open(tmp_path / "a.zarr")) == 0
    both = torch.cat([found(clip) for clip in range(8)])
    scale = torch.from_numpy(channel_scale(both.abs().amax(dim=0).numpy()))
    assert flattened(channel_errors(both.numpy(), round_trip(both, fits_found, scale).numpy())) == 0
    assert fits_found in (fits, "int8")  # a scale of its own may do with fewer bytes


def test_one_channel_in_a_hundred_may_be_lost_but_not_two() -> None:
    errors = np.zeros(200)
    errors[:2] = 1.0
    assert flattened(errors) == 0.01
    assert outliers(np.array([1.0] * 99 + [4.1])).tolist() == [99]


def test_a_damaged_channel_scale_is_found_and_never_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr", dtype="int8").path
    file = path / "channel_scale/12/c.0"
    raw = bytearray(file.read_bytes())
    raw[9] ^= 4
    file.write_bytes(raw)
    with pytest.raises(CacheError, match=r"channel_scale/12/c\.0 is damaged: its checksum is wrong"):
        TokenCache.open(path).tokens([0])
    assert [(found.file, found.lasting) for found in verify_cache(path)] == [("channel_scale/12/c.0", True)]
    result = CliRunner().invoke(featcache, ["cache", "verify", str(path), "--repair"])
    assert result.exit_code == 1
    assert "copy the cache again" in result.output
    assert len(TokenCache.open(path)) == CLIPS


def test_copies_and_conversions_take_the_scales_along(tmp_path: Path) -> None:
    source = write(tmp_path / "a.zarr", dtype="int8")
    copied = convert_cache(source.path, tmp_path / "b.zarr", shard_clips=5)
    assert torch.equal(copied.tokens(range(CLIPS)), source.tokens(range(CLIPS)))
    floats = write(tmp_path / "c.zarr", dtype="float32")
    made = convert_cache(floats.path, tmp_path / "d.zarr", dtype="int8")
    assert torch.equal(made.tokens(range(CLIPS)), source.tokens(range(CLIPS)))
    calm = write(tmp_path / "e.zarr", times=1.0, dtype="int8")
    with (
        CacheWriter.create_or_open(calm.path, layout(dtype="int8")) as writer,
        pytest.raises(MismatchError, match=r"scale channels of int8 tokens differently, so clips cannot"),
    ):
        writer.check_same(source)


@pytest.mark.parametrize("times", [1.0, 300.0])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_match_of_a_batch_is_that_of_the_tokens_themselves(
    tmp_path: Path, times: float, dtype: str
) -> None:
    from featcache.heads.data.source import Source
    from featcache.heads.matching import match
    from featcache.heads.matching.match import match_reference

    cache = write(tmp_path / "a.zarr", times, dtype=dtype)
    source = Source(cache, {("tokens", 12)}, np.arange(CLIPS), torch.device("cpu"), "off")
    given_to_head, _, valid = source.read(np.arange(CLIPS)).inputs("tokens", (12,), 12, False, stored=True)
    assert given_to_head is not None
    as_stored = dtype == "int8" and times == 1.0
    assert given_to_head.dtype == (torch.int8 if as_stored else torch.float32)
    prototypes = torch.randn(30, D, generator=torch.Generator().manual_seed(0))
    scores, _ = match(given_to_head, prototypes, valid)
    expected, _ = match_reference(cache.tokens(range(CLIPS)), prototypes, cache.mask(range(CLIPS)))
    torch.testing.assert_close(scores, expected, rtol=0, atol=2e-5)


def test_the_torch_dataset_gives_the_same_tokens(tmp_path: Path) -> None:
    cache = write(tmp_path / "a.zarr", dtype="int8")
    dataset: Callable[[list[int]], Any] = cache.dataset().__getitem__
    assert torch.equal(dataset([3, 1])[0], cache.tokens([3, 1]))
