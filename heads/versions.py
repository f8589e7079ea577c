"""With what and on what a result was made."""

import platform

import torch

from featcache import __version__


def versions() -> dict[str, str]:
    """Of what decides the numbers."""
    return {"featcache": __version__, "torch": torch.__version__, "python": platform.python_version()}


def device_name(device: torch.device) -> str:
    """The device in words.

    >>> device_name(torch.device("cpu")).startswith("cpu")
    True
    """
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}, {torch.get_num_threads()} threads"
