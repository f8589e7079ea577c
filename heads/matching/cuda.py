"""The prototype match on CUDA: one product whose epilogue keeps a maximum and its token.

Products are in the type of the tokens (int8 ones in float16, which holds them exactly; float32 ones
in TF32), sums in float32. Prototypes are divided by their largest value first, so that those of -1
and +1 stay exact. The scores are those of this product: exact for binary prototypes, and for others
as exact as prototypes in the type of the tokens are.
"""

import importlib.util
from functools import cache

import torch
from torch import Tensor

PRODUCT = {torch.float32: torch.float32, torch.float16: torch.float16, torch.bfloat16: torch.bfloat16}


NEEDS = "a CUDA device, Triton, and tokens of up to 32 bits"


def serves(tokens: Tensor, prototypes: Tensor) -> bool:
    """Whether these lie on a CUDA device and Triton is installed (it comes with torch on Linux)."""
    return tokens.is_cuda and tokens.dtype != torch.float64 and _has_triton()


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def search(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, winning tokens, and one over their lengths: each (B, P)."""
    from triton import cdiv, next_power_of_2

    from featcache.heads.matching.kernels import INTERPRETED, search_kernel, unit_kernel

    (B, N, D), P = tokens.shape, len(prototypes)
    exact = prototypes.float()
    peak = exact.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30)
    scaled = exact / peak
    stretch = 1 / scaled.norm(dim=-1).clamp(min=1e-12)  # (P,)
    product = scaled.to(PRODUCT.get(tokens.dtype, torch.float16))
    unit = torch.empty(B, N, device=tokens.device)
    unit_kernel[(B * N,)](tokens, unit, B * N, D, BLOCK_D=min(1024, next_power_of_2(D)))
    best = torch.empty(B, P, device=tokens.device)
    index = torch.empty(B, P, dtype=torch.int64, device=tokens.device)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        return cdiv(P, meta["BLOCK_P"]), B

    search_kernel[grid](tokens, product, _hide(unit, valid), best, index, N, P, D, WIDEN=INTERPRETED)
    return best * stretch, index, unit.gather(1, index)


def gather(tokens: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """For each prototype, the sum over clips of weight (B, P) times the winning token: (P, D)."""
    from triton import cdiv, next_power_of_2

    from featcache.heads.matching.kernels import gather_kernel

    (B, N, D), P = tokens.shape, weight.shape[1]
    total = torch.empty(P, D, device=tokens.device)
    block_p, block_d = 16, min(128, next_power_of_2(D))
    grid = cdiv(P, block_p), cdiv(D, block_d)
    gather_kernel[grid](tokens, weight, index, total, B, N, P, D, BLOCK_P=block_p, BLOCK_D=block_d)
    return total


def _hide(unit: Tensor, valid: Tensor | None) -> Tensor:
    """Mark tokens that may not win; a clip without any valid token keeps its first."""
    if valid is None:
        return unit
    kept = valid.clone()
    kept[:, 0] |= ~valid.any(dim=1)
    return unit.masked_fill(~kept, -1.0)
