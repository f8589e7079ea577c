"""Where and with what numbers are computed: devices, their free memory, threads, versions."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from featcache._version import __version__
from featcache.errors import InputError

FALLBACK = 4 << 30  # [bytes] of free memory where the system does not say


def choose_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is one, then Apple's MPS, then the CPU.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # "meta" holds shapes and no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here ({reason}); choose cpu or auto") from None
    return device


def device_name(device: torch.device) -> str:
    """The device in words.

    >>> device_name(torch.device("cpu")).startswith("cpu")
    True
    """
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}, {torch.get_num_threads()} threads"


def free_memory(device: torch.device) -> int:
    """[bytes] that could be used on this device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return FALLBACK


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is a lack of memory; the CPU's allocator has no class of error for it.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    True
    """
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {"featcache": __version__, "torch": torch.__version__, "python": platform.python_version()}


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """So many threads inside for torch and the match; as before where ``count`` is None."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
