"""The facts about this machine that decide whether featcache runs here, and how fast."""

import platform
import resource
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from featcache._version import __version__
from featcache.cores import cores
from featcache.devices import device_name, free_memory
from featcache.errors import InputError
from featcache.files import reason
from featcache.home import home
from featcache.machine.disk import disk_rates, file_system, free_bytes, nearest_folder
from featcache.weights.download import downloaded
from featcache.weights.known import KNOWN

PACKAGES = ("torch", "torchaudio", "timm", "zarr", "numpy", "soundfile", "soxr", "optuna")
EXTRAS = ("transformers", "pyarrow", "s3fs", "gcsfs", "adlfs", "submitit")  # that optional parts need
_INSTRUCTIONS = ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16")
_COPY_BYTES = 64 * 2**20


def machine_facts(folder: Path) -> dict[str, Any]:
    """All facts, by section; takes about a second, most of it to write and read 64 MB in ``folder``.

    Args:
        folder: where caches are to lie; it need not be there yet

    Raises:
        InputError: nothing can be written there.
    """
    return {
        "versions": _versions(),
        "devices": _devices(),
        "instructions": instructions(),
        "memory": _memory(),
        "disk": _disk(folder),
        "limits": _limits(),
        "hub": _hub(),
        "weights": _weights(),
    }


def _versions() -> dict[str, str | None]:
    own = {"featcache": __version__, "python": platform.python_version(), "system": platform.platform()}
    return own | {name: _version(name) for name in (*PACKAGES, *EXTRAS)}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> dict[str, Any]:
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return {
        "cpu": _processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cuda": [
            {
                "name": device_name(gpu).removeprefix("cuda: "),
                "bytes": torch.cuda.get_device_properties(gpu).total_memory,
                "free": free_memory(gpu),
                "bfloat16": torch.cuda.get_device_capability(gpu) >= (8, 0),
            }
            for gpu in gpus
        ],
        "mps": torch.backends.mps.is_available(),
    }


def _processor() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instructions() -> dict[str, Any]:
    """What the processor has of what matters here, and the level at which torch uses it."""
    flags: set[str] = set()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith(("flags", "Features")):
            flags.update(line.partition(":")[2].split())
    return {
        "torch": torch.backends.cpu.get_cpu_capability(),
        "found": [name for name in _INSTRUCTIONS if name in flags],
    }


def _memory() -> dict[str, float]:
    source = torch.ones(_COPY_BYTES // 4)
    target = torch.zeros_like(source)  # its pages are there before the clock starts
    began = time.perf_counter()
    target.copy_(source)
    seconds = time.perf_counter() - began
    return {"free": free_memory(torch.device("cpu")), "copy_rate": _COPY_BYTES / max(seconds, 1e-9)}


def _disk(folder: Path) -> dict[str, Any]:
    there = nearest_folder(folder)
    kind = file_system(folder)
    try:
        rates = disk_rates(there)
    except OSError as error:
        raise InputError(
            f"{there} cannot be written to ({reason(error)}); name a folder that caches are to lie in",
            options=("folder",),
        ) from error
    return {
        "folder": str(there), "kind": kind.kind, "network": kind.network, "free": free_bytes(folder),
        "write_rate": rates.write, "read_rate": rates.read,
    }  # fmt: skip


def _limits() -> dict[str, int | None]:
    """What the shell allows; None where there is no limit."""
    names = {"open_files": resource.RLIMIT_NOFILE, "file_bytes": resource.RLIMIT_FSIZE,
             "memory_bytes": resource.RLIMIT_AS}  # fmt: skip
    soft = {name: resource.getrlimit(which)[0] for name, which in names.items()}
    return {name: None if value == resource.RLIM_INFINITY else value for name, value in soft.items()}


def _hub() -> dict[str, Any]:
    """Whether there is a token for the Hugging Face Hub, which some weights ask for; never the token."""
    from huggingface_hub import constants, get_token

    return {
        "token": get_token() is not None,
        "offline": bool(constants.HF_HUB_OFFLINE),
        "folder": constants.HF_HOME,
        "home": str(home()),
    }


def _weights() -> dict[str, list[str]]:
    """Encoder -> the addresses of its published checkpoints that need not be fetched again."""
    here: dict[str, list[str]] = {}
    for each in KNOWN:
        if each.loads and downloaded(each.address):
            here.setdefault(each.encoder, []).append(each.address)
    return here


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
