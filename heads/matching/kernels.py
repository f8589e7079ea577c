"""Triton kernels of the prototype match: a product with a running maximum, and the gather backwards.

Written for tensor cores; ``TRITON_INTERPRET=1`` runs them in Python on a CPU.
"""

# Triton's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret


def _configs() -> list[triton.Config]:
    shapes = [
        (128, 128, 64, 4, 3),
        (128, 128, 64, 8, 4),
        (128, 256, 64, 8, 3),
        (256, 128, 64, 8, 3),
        (64, 128, 64, 4, 4),
        (64, 64, 32, 4, 4),
    ]
    if INTERPRETED:  # there is nothing to time
        shapes = [(16, 16, 16, 1, 1)]
    return [
        triton.Config({"BLOCK_P": p, "BLOCK_N": n, "BLOCK_D": d}, num_warps=warps, num_stages=stages)
        for p, n, d, warps, stages in shapes
    ]


@triton.jit
def unit_kernel(tokens, unit, rows, D, BLOCK_D: tl.constexpr):
    """One over the length of each of ``rows`` tokens."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    squares = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, D, BLOCK_D):
        values = tl.load(tokens + row * D + first + d, mask=first + d < D, other=0).to(tl.float32)
        squares += values * values
    length = tl.sqrt(tl.sum(squares, axis=0))
    tl.store(unit + row, 1 / tl.maximum(length, 1e-12), mask=row < rows)


@triton.autotune(configs=_configs(), key=["N", "P", "D"])
@triton.jit
def search_kernel(
    tokens,  # (B, N, D)
    prototypes,  # (P, D), in the type of the product
    unit,  # (B, N) one over the length of a token; negative for a token that may not win
    best,  # (B, P) out: the largest product with a unit token
    index,  # (B, P) out: its token
    N,
    P,
    D,
    WIDEN: tl.constexpr,  # multiply in float32: Triton's interpreter multiplies the bits of bfloat16
    BLOCK_P: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """One clip and BLOCK_P prototypes per program; prototypes are rows, so that a maximum over tokens
    stays inside a warp. Programs of one clip run side by side and share its tokens in the L2 cache."""
    clip = tl.program_id(1).to(tl.int64)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    d = tl.arange(0, BLOCK_D)
    rows = prototypes + p[:, None].to(tl.int64) * D
    top = tl.full((BLOCK_P,), float("-inf"), tl.float32)
    where = tl.zeros((BLOCK_P,), tl.int32)
    for start in range(0, N, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        columns = tokens + (clip * N + n[None, :]) * D
        total = tl.zeros((BLOCK_P, BLOCK_N), tl.float32)
        for first in range(0, D, BLOCK_D):
            inside = first + d < D
            a = tl.load(rows + first + d[None, :], mask=(p[:, None] < P) & inside[None, :], other=0.0)
            b = tl.load(columns + first + d[:, None], mask=(n[None, :] < N) & inside[:, None], other=0)
            b = b.to(a.dtype)
            if WIDEN:
                a, b = a.to(tl.float32), b.to(tl.float32)
            total = tl.dot(a, b, total)
        scale = tl.load(unit + clip * N + n, mask=n < N, other=-1.0)
        seen = tl.where(scale[None, :] >= 0, total * scale[None, :], float("-inf"))
        value, place = tl.max(seen, axis=1, return_indices=True)
        where = tl.where(value > top, start + place, where)
        top = tl.maximum(top, value)
    tl.store(best + clip * P + p, top, mask=p < P)
    tl.store(index + clip * P + p, where.to(tl.int64), mask=p < P)


@triton.jit
def gather_kernel(
    tokens,  # (B, N, D)
    weight,  # (B, P)
    index,  # (B, P)
    total,  # (P, D) out: the sum over clips of weight times the winning token
    B,
    N,
    P,
    D,
    BLOCK_P: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Clips in order, so that the result is the same every time; all programs are at about the same
    clip, so its tokens come from the L2 cache."""
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = (p[:, None] < P) & (d[None, :] < D)
    sums = tl.zeros((BLOCK_P, BLOCK_D), tl.float32)
    for b in range(B):
        w = tl.load(weight + b * P + p, mask=p < P, other=0.0)
        n = tl.load(index + b * P + p, mask=p < P, other=0)  # int64, so that the offset below is too
        row = tokens + (n[:, None] + b * N) * D + d[None, :]
        sums += w[:, None] * tl.load(row, mask=inside, other=0).to(tl.float32)
    tl.store(total + p[:, None].to(tl.int64) * D + d[None, :], sums, mask=inside)
