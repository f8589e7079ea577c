"""Tokens into the form that is stored: the pass in C gives the bits of NumPy, and both are right."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.cache.format.dtypes import STORE_DTYPES, StoreDtype
from featcache.cache.format.quantize import dequantize
from featcache.cache.write import native, plain

SOURCES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 2, 1), (5, 8, 5), (9, 10, 0), (33, 64, 32), (512, 24, 512), (1300, 30, 1201)]  # n, D, valid


def tokens_of(n: int, D: int, source: torch.dtype) -> Tensor:
    """Random, with a large channel, zeros of both signs, and values that are too small for float16."""
    tokens = torch.randn(n, D, generator=torch.Generator().manual_seed(n * D))
    tokens[:, 1] *= 300
    tokens[0] = -0.0
    tokens[n // 2] = 0
    tokens[n - 1, : D // 2] = 3e-6 * torch.randn(D // 2, generator=torch.Generator().manual_seed(1))
    return tokens.to(source)


def stored(
    form: Any, tokens: Tensor, valid: int, dtype: StoreDtype, channels: Tensor | None, mean: Tensor | None
) -> tuple[bool, plain.StoredLayer]:
    n, D = tokens.shape
    out = plain.StoredLayer(
        row=torch.zeros(n + 2, dtype.packed(D), dtype=dtype.torch),
        scale=torch.zeros(n + 2) if dtype.scaled else None,
        mean=torch.empty(D) if mean is None else mean.clone(),
        variance=np.empty(D, dtype=np.float32),
        largest=np.empty(D, dtype=np.float32),
    )
    given = mean is not None
    if form is native:
        return native.StorePass(out, dtype)(tokens, valid, channels, given), out
    return plain.store(out, tokens, valid, dtype, channels, given), out


def bits(out: plain.StoredLayer) -> list[bytes]:
    arrays = [
        np.asarray(part.view(torch.uint8) if isinstance(part, Tensor) else part)
        for part in out
        if part is not None
    ]
    return [array.tobytes() for array in arrays]


@pytest.mark.skipif(native.library() is None, reason="no C compiler, or no AVX2")
@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("dtype", STORE_DTYPES.values(), ids=lambda dtype: dtype.name)
def test_one_pass_gives_the_bits_of_numpy(dtype: StoreDtype, source: torch.dtype) -> None:
    for n, D, valid in SHAPES:
        whole = tokens_of(n, 2 * D, source)
        for tokens in (whole[:, :D], whole[:, :D].contiguous()):  # also rows that are apart
            for channels in (None, torch.rand(D) + 0.1) if dtype.scaled else (None,):
                for mean in (None, torch.randn(D)):
                    mine, theirs = (
                        stored(form, tokens, valid, dtype, channels, mean) for form in (native, plain)
                    )
                    assert mine[0]
                    assert theirs[0]
                    assert bits(mine[1]) == bits(theirs[1]), (n, D, valid, channels is None, mean is None)


@pytest.mark.parametrize("form", [native, plain], ids=["native", "plain"])
@pytest.mark.parametrize("dtype", STORE_DTYPES.values(), ids=lambda dtype: dtype.name)
def test_what_is_stored_is_what_was_given(dtype: StoreDtype, form: Any) -> None:
    if form is native and native.library() is None:
        pytest.skip("no C compiler, or no AVX2")
    tokens = torch.randn(600, 16)
    finite, out = stored(form, tokens, 550, dtype, None, None)
    exact = tokens.double()
    assert finite
    back = dequantize(out.row[:600], None if out.scale is None else out.scale[:600], dtype.name).double()
    step = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8, "int8": 0.5 / 127, "int4": 0.5 / 7}[
        dtype.name
    ]
    assert ((back - exact).abs() <= step * exact.abs().amax(1, keepdim=True) * 1.001 + 1e-7).all()
    assert not out.row[600:].any()
    torch.testing.assert_close(out.mean.double(), exact[:550].mean(0), rtol=0, atol=1e-6)
    some = exact[:550:8]
    assert out.variance == pytest.approx((some - exact[:550].mean(0)).square().mean(0).numpy(), rel=1e-5)
    assert out.largest == pytest.approx(tokens[:550].abs().amax(0).numpy(), rel=0)


@pytest.mark.parametrize("form", [native, plain], ids=["native", "plain"])
@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("dtype", STORE_DTYPES.values(), ids=lambda dtype: dtype.name)
def test_what_cannot_be_stored_is_seen_wherever_it_is(
    dtype: StoreDtype, source: torch.dtype, form: Any
) -> None:
    if form is native and native.library() is None:
        pytest.skip("no C compiler, or no AVX2")
    for value in (float("inf"), -float("inf"), float("nan"), -float("nan"), 1e38, -1e38):
        if source == torch.float16 and abs(value) == 1e38:
            continue
        for place in (0, 7, 8, 18):
            tokens = torch.randn(5, 19 if dtype.bits != 4 else 20).to(source)
            tokens[4, place] = value
            lost = not np.isfinite(value) or dtype.name == "float16"
            assert stored(form, tokens, 3, dtype, None, None)[0] is not lost, (value, place)
