"""The prototype match in C (``csrc/``), compiled when it is first needed.

torch has no operation that keeps a running maximum over a product, and on CPUs with AVX2 alone its
bfloat16 and int8 products are slower than float32. Where no C compiler is found, ``serves`` says no
and the match runs in torch operations instead.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from featcache import compiled

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int8)  # in the order of csrc/tokens.h
GROUP, CHUNK, PANEL = 6, 5, 16  # as in csrc/bits.h and csrc/wide.h
REACH = 46_000.0  # length of a prototype rounded to 16 bits: its square is just below 2**31
SOURCES = Path(__file__).parent / "csrc"
PLAIN = False  # AVX2 alone, though the processor has more: for tests, which find no difference
NEEDS = "a CPU with AVX2, a C compiler, and tokens of up to 32 bits"


class _Match(ctypes.Structure):
    """As ``Match`` in csrc/match.c."""

    _fields_ = (
        ("tokens", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("dtype", "B", "N", "D", "P")),
        ("valid", ctypes.c_void_p),
        ("prototypes", ctypes.c_void_p),
        ("stretch", ctypes.c_double),
        ("entries", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
        ("groups", ctypes.c_int64),
        ("reach", ctypes.c_double),
        ("plain", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("scores", "index", "inverse")),
    )


def serves(tokens: Tensor, prototypes: Tensor) -> bool:
    """Whether these can be matched here: on this CPU, of these types, compiled code at hand."""
    known = tokens.dtype in DTYPES and prototypes.dtype != torch.float64
    return known and tokens.device.type == "cpu" and library() is not None


def search(tokens: Tensor, prototypes: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, winning tokens, and one over their lengths: each (B, P)."""
    B, P = len(tokens), len(prototypes)
    scores, inverse = torch.empty(B, P), torch.empty(B, P)
    index = torch.empty(B, P, dtype=torch.int64)
    job = _job(tokens, index)
    packed = _pack(job, prototypes.float())
    job.scores, job.inverse = scores.data_ptr(), inverse.data_ptr()
    if valid is not None:
        valid = valid.contiguous()
        job.valid = valid.data_ptr()
    failed = _spread(B, lambda first, last: _run("featcache_match", job, first, last))
    del packed  # the job holds pointers to it
    if any(failed):
        raise MemoryError("the prototype match could not allocate its work space")
    return scores, index, inverse


def gather(tokens: Tensor, weight: Tensor, index: Tensor) -> Tensor:
    """For each prototype, the sum over clips of weight (B, P) times the winning token: (P, D)."""
    total = torch.empty(index.shape[1], tokens.shape[-1])
    job = _job(tokens, index)
    pointers = [ctypes.c_void_p(weight.data_ptr()), ctypes.c_void_p(total.data_ptr())]
    _spread(len(total), lambda first, last: _run("featcache_gather", job, *pointers, first, last))
    return total


def _pack(job: _Match, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Tell the job of its prototypes; what is returned must live until the job has run."""
    binary = pack_signs(prototypes)
    if binary is not None:
        signs, entries = binary
        job.prototypes, job.stretch = signs.data_ptr(), prototypes.shape[1] ** -0.5
        job.entries, job.groups = entries.data_ptr(), len(entries) * CHUNK
        return binary
    directions = torch.nn.functional.normalize(prototypes, dim=-1)
    packed, job.reach = pack_wide(directions)
    job.prototypes, job.stretch, job.packed = directions.data_ptr(), 1.0, packed.data_ptr()
    return directions, packed


def pack_signs(prototypes: Tensor) -> tuple[Tensor, Tensor] | None:
    """Prototypes of one size as signs (P, D) and table entries (chunks, P, CHUNK); None for others.

    An entry holds the signs of GROUP neighbouring dimensions, as the place of their sum in a table.
    """
    P, D = prototypes.shape
    chunks = -(-D // (GROUP * CHUNK))
    signs = torch.empty(P, D, dtype=torch.int8)
    entries = torch.empty(chunks, P, CHUNK, dtype=torch.uint16)
    sizes = [ctypes.c_int64(size) for size in (P, D, chunks * CHUNK)]
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (prototypes, signs, entries)]
    library_ = library()
    assert library_ is not None  # serves() said so
    same = library_.featcache_pack_signs(pointers[0], *sizes, *pointers[1:])
    return (signs, entries) if same else None


def pack_wide(directions: Tensor) -> tuple[Tensor, float]:
    """Prototypes in 16 bits, (panels, pairs, PANEL, 2), and the largest length of one."""
    P, D = directions.shape
    peak = directions.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
    # A prototype with a NaN has no direction: it packs as zeros, lest it set the scale of its neighbours.
    rounded = (directions * (32767 / peak).clamp(max=REACH)).round().nan_to_num(0.0)
    full = torch.zeros(-(-P // PANEL) * PANEL, -(-D // 8) * 8, dtype=torch.int16)
    full[:P, :D] = rounded
    packed = full.view(len(full) // PANEL, PANEL, -1, 2).transpose(1, 2).contiguous()
    return packed, float(rounded.norm(dim=-1).max())


def _job(tokens: Tensor, index: Tensor) -> _Match:
    B, N, D = tokens.shape
    job = _Match(B=B, N=N, D=D, P=index.shape[1], dtype=DTYPES.index(tokens.dtype))
    job.tokens, job.index, job.plain = tokens.data_ptr(), index.data_ptr(), PLAIN
    return job


def _run(entry: str, job: _Match, *rest: ctypes.c_void_p | int) -> int:
    arguments = [ctypes.c_int64(item) if isinstance(item, int) else item for item in rest]
    status: int = getattr(library(), entry)(ctypes.byref(job), *arguments)
    return status


def _spread(count: int, work: Callable[[int, int], int]) -> list[int]:
    """Share ``count`` items between as many threads as torch uses; C runs without Python's lock."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return [work(0, count)]
    edges = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, edges[:-1], edges[1:]))


def library() -> ctypes.CDLL | None:
    """The compiled code; None where there is none."""
    return compiled.library(SOURCES / "match.c")
