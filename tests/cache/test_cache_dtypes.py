"""Storage dtypes: what is lost, what is refused, and the way back to floats."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from featcache.cache import CacheWriter, TokenCache, dequantize
from featcache.cache.format.dtypes import STORE_DTYPES, store_dtype
from featcache.cache.format.quantize import quantize
from featcache.cache.write.plain import _is_finite, mean_token
from featcache.errors import InputError

# Largest error of a value, as a fraction of its token's largest magnitude: half of the last bit kept.
ERRORS = {"float16": 2**-11, "float32": 0.0, "bfloat16": 2**-8, "int8": 0.5 / 127, "int4": 0.5 / 7}


@pytest.mark.parametrize("dtype", STORE_DTYPES)
@pytest.mark.parametrize("codec", [None, "blosc"])
def test_tokens_come_back_within_the_dtypes_error(
    make_cache: Callable[..., TokenCache], clips: Any, dtype: str, codec: str | None
) -> None:
    cache = make_cache(10, dtype=dtype, codec=codec)
    rows = [9, 0, 4]
    tokens = dequantize(cache.gather(rows), cache.scales(rows), dtype).float()
    for stored, row in zip(tokens, rows, strict=True):
        original = clips.tokens(row)
        limit = ERRORS[dtype] * original.abs().amax(dim=1, keepdim=True) * 1.001
        assert ((stored - original).abs() <= limit).all()
        assert (stored[clips.valid(row) :] == 0).all()


def test_int4_packs_the_even_value_into_the_low_half() -> None:
    packed, scale = quantize(torch.tensor([[1.0, -7.0, 3.0, 0.0]]), store_dtype("int4"))
    assert scale.item() == 1.0
    assert packed.tolist() == [[0x91, 0x03]]  # -7 is 9 in four bits of two's complement
    assert dequantize(packed[None], scale[None], "int4").tolist() == [[[1.0, -7.0, 3.0, 0.0]]]


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_token_of_zeros_stays_zero(dtype: str) -> None:
    integers, scale = quantize(torch.zeros(2, 4), store_dtype(dtype))
    assert (dequantize(integers, scale, dtype) == 0).all()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_quantised_values_are_the_nearest_steps(dtype: str) -> None:
    tokens = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)) * 100
    integers, scale = quantize(tokens, store_dtype(dtype))
    back = dequantize(integers, scale, dtype)
    steps = STORE_DTYPES[dtype].steps
    for token, row in zip(tokens.numpy(), back.numpy(), strict=True):
        grid = np.arange(-steps, steps + 1) * np.abs(token).max() / steps
        nearest = grid[np.abs(token[:, None] - grid).argmin(axis=1)]
        np.testing.assert_allclose(row, nearest, rtol=1e-5, atol=1e-6)


def test_quantised_tokens_without_scales_are_refused() -> None:
    with pytest.raises(InputError, match=r"int8 tokens need their scales; take them from TokenCache.scales"):
        dequantize(torch.zeros(1, 2, 2, dtype=torch.int8), None, "int8")


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [
        ("float16", 65519.0, 65504.0),
        ("float32", 3e38, 3e38),
        ("int8", 1e30, 1e30),
        ("bfloat16", 70000.0, 70144.0),
    ],
)
def test_the_largest_values_are_stored(
    make_cache: Callable[..., TokenCache], clips: Any, dtype: str, value: float, stored: float
) -> None:
    cache = make_cache(0, dtype=dtype, layers=(3,), has_cls=False)
    with CacheWriter.create_or_open(cache.path, cache.layout) as writer:
        writer.add("loud", clips.key(0), {3: torch.full((6, 8), -value)}, None, 6)
    cache = TokenCache.open(cache.path)
    read = dequantize(cache.gather([0]), cache.scales([0]), dtype).float()
    assert torch.allclose(read, torch.tensor(-stored), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (
            "float16",
            65520.0,
            r"'loud': layer 3 has a token value of 65520, beyond .* float16.*bfloat16 or float32",
        ),
        (
            "bfloat16",
            3.3999e38,
            r"'loud': layer 3 has a token value of 3.3999e\+38, beyond the range of bfloat16",
        ),
        ("float16", float("nan"), r"'loud': layer 3 has NaN or infinite tokens; encode it in float32"),
        ("float32", float("inf"), r"'loud': layer 3 has NaN or infinite tokens"),
        ("int8", float("-inf"), r"'loud': layer 3 has NaN or infinite tokens"),
        ("int4", float("nan"), r"'loud': layer 3 has NaN or infinite tokens"),
    ],
)
def test_a_value_that_cannot_be_stored_names_the_clip(
    make_cache: Callable[..., TokenCache], clips: Any, dtype: str, value: float, message: str
) -> None:
    cache = make_cache(0, dtype=dtype, layers=(3,), has_cls=False)
    tokens = torch.zeros(6, 8)
    tokens[5, 7] = value
    with (
        pytest.raises(InputError, match=message),
        CacheWriter.create_or_open(cache.path, cache.layout) as writer,
    ):
        writer.add("loud", clips.key(0), {3: tokens}, None, 4)


def test_float16_tokens_are_taken_as_they_are(make_cache: Callable[..., TokenCache], clips: Any) -> None:
    cache = make_cache(0, layers=(3,), has_cls=False)
    tokens = torch.randn(6, 8).half()
    with CacheWriter.create_or_open(cache.path, cache.layout) as writer:
        writer.add("clip", clips.key(0), {3: tokens}, None, 6)
    assert (TokenCache.open(cache.path).gather([0])[0] == tokens).all()


def test_unknown_dtypes_and_odd_widths_are_refused(make_cache: Callable[..., TokenCache]) -> None:
    with pytest.raises(InputError, match="no storage dtype named 'float61'; did you mean 'float16'"):
        make_cache(dtype="float61")
    with pytest.raises(InputError, match="int4 packs two values a byte and needs an even width, not 7"):
        make_cache(dtype="int4", dim=7)
    with pytest.raises(InputError, match="no codec named 'zst'; did you mean 'zstd'"):
        make_cache(codec="zst")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_finite_is_told_by_the_bits_of_every_16_bit_float(dtype: torch.dtype) -> None:
    floats = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    found = [_is_finite(value) for value in floats.view(-1, 1)]
    assert found == floats.isfinite().tolist()


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, -torch.nan, 3.4e38, -3.4e38, -0.0])
def test_one_float32_that_is_not_finite_is_seen_among_others(value: float) -> None:
    floats = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    floats[3, 2] = value
    assert _is_finite(floats) == bool(floats.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [0, 1, 511, 512, 1300])
def test_a_mean_is_that_of_float64(dtype: torch.dtype, rows: int) -> None:
    tokens = (torch.randn(rows, 24, generator=torch.Generator().manual_seed(rows)) * 100).to(dtype)
    wanted = tokens.double().sum(dim=0) / max(rows, 1)
    found = mean_token(tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)
