"""A trained head in one safetensors file; binary prototypes are stored as bits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from featcache.errors import InputError, MissingError
from featcache.heads.base import Head
from featcache.heads.prototypical import ProtoBin
from featcache.heads.registry import build_head

BITS = "prototypes.bits"


def save(head: Head, path: str | Path, config: dict[str, Any] | None = None) -> None:
    """Write a head for use: its weights, how to build it, and what the caller wants remembered.

    The latent floats behind binary prototypes are not kept, only their signs: 32 times smaller,
    the same logits, but not a state to go on training from.

    Args:
        config: JSON values stored beside the weights, e.g. class names and the cache's fingerprint.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    if isinstance(head, ProtoBin):
        state[BITS] = signs_to_bits(state.pop("prototypes"))
    metadata = {"head": json.dumps(head.config), "config": json.dumps(config or {})}
    save_file(state, path, metadata=metadata)


def load(path: str | Path) -> Head:
    """Read a saved head, in evaluation mode; its logits are those of the head that was saved.

    Raises:
        MissingError: no such file.
        InputError: the file is not a head written by ``save``.
    """
    settings, state = _read(path)
    head = build_head(**settings)
    if BITS in state:
        state["prototypes"] = bits_to_signs(state.pop(BITS), settings["dim"])
    head.load_state_dict(state)
    return head.eval()


def load_config(path: str | Path) -> dict[str, Any]:
    """The ``config`` that was given to ``save``."""
    with safe_open(path, framework="pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
    return config


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise MissingError(f"no saved head at {path}; train one with 'featcache probe'")
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads(file.metadata()["head"])
            return settings, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a head saved by featcache; train one with 'featcache probe'"
        ) from error


def signs_to_bits(latent: Tensor) -> Tensor:
    """Signs (P, D) to bits (P, ceil(D/8)) uint8; zero counts as +1.

    >>> signs_to_bits(torch.tensor([[1.0, -1.0, 0.0]]))
    tensor([[160]], dtype=torch.uint8)
    """
    return torch.from_numpy(np.packbits((latent >= 0).numpy(), axis=1))


def bits_to_signs(bits: Tensor, dim: int) -> Tensor:
    """The -1 and +1 that ``signs_to_bits`` packed, (P, dim) float32."""
    signs = np.unpackbits(bits.numpy(), axis=1, count=dim)
    return torch.from_numpy(signs).float() * 2 - 1
