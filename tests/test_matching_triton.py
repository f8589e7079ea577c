"""The CUDA form of the match: in Triton's interpreter on a CPU, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from featcache.heads.matching import cuda, match
from featcache.heads.matching.match import engine

INTERPRETED = """
import torch
from featcache.heads.matching import blocks, cuda

torch.manual_seed(0)
for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int8):
    for binary in (True, False) if dtype in (torch.float32, torch.int8) else (True,):
        for B, N, D, P in ((2, 19, 20, 18), (1, 1, 3, 1))[: 1 + binary]:  # no multiple of any block
            tokens = (torch.randn(B, N, D) * 20).round().clamp(-127, 127).to(dtype)
            prototypes = torch.randn(P, D).sign() if binary else torch.randn(P, D)
            valid = torch.rand(B, N) < 0.7
            valid[0] = False  # a clip of padding alone: its first token stands for it
            scores, index, inverse = cuda.search(tokens, prototypes, valid)
            expected = blocks.search(tokens, prototypes, valid)
            slack = 1e-6 if binary or dtype == torch.float32 else 2e-3
            torch.testing.assert_close(scores, expected[0], rtol=0, atol=slack)
            assert torch.equal(index, expected[1])
            torch.testing.assert_close(inverse, expected[2])
            weight = torch.randn(B, P)
            total = cuda.gather(tokens, weight, index)
            expected = blocks.gather(tokens, weight, index)
            torch.testing.assert_close(total, expected, atol=1e-3, rtol=1e-5)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_equal_the_torch_form_in_the_interpreter():
    # In a process of its own: Triton reads this variable when it is imported.
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "error", "-c", INTERPRETED]
    # From elsewhere: the checkout's featcache/ would hide the installed package, which has the heads.
    result = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "equal", result.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_compile_for_a_hopper_gpu_to_its_matrix_instructions(tmp_path, monkeypatch):
    """As far as it goes without one: the compiler of CUDA comes with Triton."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from featcache.heads.matching import kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    target = GPUTarget("cuda", 90, 32)
    fixed = {"WIDEN": False, **kernels._configs()[0].kwargs}
    types = {"tokens": "*fp16", "prototypes": "*fp16", "unit": "*fp32", "best": "*fp32", "index": "*i64"}
    sizes = dict.fromkeys(("N", "P", "D"), "i32")
    signature = {**types, **sizes, **dict.fromkeys(fixed, "constexpr")}
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(8)}
    made = compile(ASTSource(kernels.search_kernel.fn, signature, fixed, aligned), target)
    assert "wgmma.mma_async" in made.asm["ptx"]
    fixed = {"BLOCK_P": 16, "BLOCK_D": 128}
    types = {"tokens": "*i8", "weight": "*fp32", "index": "*i64", "total": "*fp32", "B": "i32"}
    signature = {**types, **sizes, **dict.fromkeys(fixed, "constexpr")}
    assert compile(ASTSource(kernels.gather_kernel, signature, fixed), target).asm["cubin"]


def test_tokens_on_a_cpu_are_not_for_the_kernels():
    assert not cuda.serves(torch.zeros(1, 1, 4), torch.zeros(1, 4))


@pytest.mark.gpu
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("sizes", [(2, 512, 768, 1000), (2, 1212, 768, 10_540), (3, 37, 50, 19)], ids=str)
def test_kernels_equal_the_reference_on_a_gpu(sizes, dtype, binary):
    B, N, D, P = sizes
    torch.manual_seed(0)
    tokens = (torch.randn(B, N, D, device="cuda") * 20).round().clamp(-127, 127).to(dtype)
    prototypes = torch.randn(P, D, device="cuda")
    prototypes = (prototypes.sign() if binary else prototypes).requires_grad_()
    valid = torch.rand(B, N, device="cuda") < 0.7
    valid[:, 0] = True
    assert engine(tokens, prototypes) is cuda
    scores, index = match(tokens, prototypes, valid)
    unit = torch.nn.functional.normalize(tokens.double(), dim=-1)
    exact = prototypes.detach().double().requires_grad_()
    similarity = unit @ torch.nn.functional.normalize(exact, dim=-1).T
    won = similarity.gather(1, index.unsqueeze(1)).squeeze(1)
    best = similarity.masked_fill(~valid.unsqueeze(-1), -2).amax(dim=1)
    slack = 1e-6 if binary and dtype != torch.float32 else 2e-3
    torch.testing.assert_close(scores.double(), won, rtol=0, atol=slack)
    assert (best - won).max() <= slack
    weight = torch.randn(B, P, device="cuda")
    (gradient,) = torch.autograd.grad((scores * weight).sum(), prototypes)
    (expected,) = torch.autograd.grad((won * weight).sum(), exact)
    torch.testing.assert_close(
        gradient.double(), expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item()
    )
