"""Checkpoints of every published container to one state dict, checked key by key.

Only tensors and plain containers are unpickled (``weights_only=True``): a checkpoint cannot run code.
"""

import argparse
import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar as _rebuild_number
from safetensors.torch import load_file
from torch import Tensor, nn

from featcache.errors import InputError, MismatchError
from featcache.weights.download import locate

# Beyond tensors and containers: what AudioMAE's 'args' and fairseq's numbers are pickled as. None of
# them runs code when it is built.
_ALLOWED: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("bool", "int32", "int64", "float32", "float64")),
    (_rebuild_number, "numpy.core.multiarray.scalar"),
    (_rebuild_number, "numpy._core.multiarray.scalar"),
]

# Where the containers keep the weights: AudioMAE, BEATs, EAT, Dasheng; Lightning; ASiT's teacher.
_STATE_KEYS = ("model", "state_dict", "teacher")
_CONFIG_KEYS = ("cfg", "config", "hyper_parameters")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a checkpoint and the configuration that came with them."""

    state: dict[str, Tensor]
    source: str  # as the user named it, for messages
    config: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[int, str] = field(default_factory=dict)  # of a fine-tuned BEATs: class to AudioSet id

    def without(self, *prefixes: str) -> "Checkpoint":
        """Without the first of ``prefixes`` that some keys have; keys without it stay as they are.

        >>> Checkpoint(state={"encoder.norm": torch.ones(1)}, source="x").without("encoder.").state
        {'norm': tensor([1.])}
        """
        for prefix in prefixes:
            if any(key.startswith(prefix) for key in self.state):
                return self.with_state({key.removeprefix(prefix): t for key, t in self.state.items()})
        return self

    def with_state(self, state: dict[str, Tensor]) -> "Checkpoint":
        """The same with other tensors or names."""
        return replace(self, state=state)

    def shape(self, key: str, architecture: str) -> torch.Size:
        """The shape of a tensor that every checkpoint of the architecture has.

        Raises:
            MismatchError: it is not there, so these are the weights of something else.
        """
        if key not in self.state:
            raise MismatchError(
                f"{self.source} is no {architecture} checkpoint: {key} is missing; it holds "
                f"{_some(self.state)}; give the weights of this encoder"
            )
        return self.state[key].shape

    def count(self, blocks: str) -> int:
        """How many numbered blocks there are under a name such as ``blocks``."""
        found = (re.match(rf"{re.escape(blocks)}\.(\d+)\.", key) for key in self.state)
        return 1 + max((int(match[1]) for match in found if match), default=-1)


def load_checkpoint(weights: str) -> Checkpoint:
    """Read a local path, ``hf-hub:owner/name``, or a URL.

    Raises:
        MissingError: there is no such file, or it cannot be fetched.
        InputError: it is truncated, not a checkpoint, or holds a forbidden object.
    """
    content = _read(locate(weights), weights)
    if not isinstance(content, Mapping):
        raise InputError(
            f"{weights} holds a {type(content).__name__}, not named tensors; save its state_dict"
        )
    inner = next((content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), content)
    # Nested dictionaries go: EAT's '_ema' is a second copy of the model (the teacher).
    state = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
    if not state and isinstance(content.get("student"), Mapping):
        raise InputError(
            f"{weights} holds a student and no teacher, whose weights are the ones to use; "
            "give the whole checkpoint"
        )
    if not state:
        raise InputError(f"{weights} holds no tensors, only {_some(content)}; give a checkpoint")
    config: Mapping[str, Any] = next(
        (content[key] for key in _CONFIG_KEYS if isinstance(content.get(key), Mapping)), {}
    )
    labels = content.get("label_dict")
    labels = labels if isinstance(labels, Mapping) else {}
    return Checkpoint(state=state, source=weights, config=config, labels=labels).without("module.")


def _read(path: Path, source: str) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_ALLOWED):
            # Mapped, so that an optimizer's state beside the weights is never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # bytes that are no pickle fail anywhere in torch's unpickler
        raise InputError(_reason(source, str(error))) from error


def _reason(source: str, error: str) -> str:
    forbidden = re.search(r"(?:GLOBAL |Unsupported (?:global|class) )([\w.]+)", error)
    if forbidden:
        return (
            f"{source} was refused: its pickle asks for {forbidden[1]}, and only tensors, plain containers, "
            "numbers and argparse.Namespace are loaded; save its state_dict alone, or as .safetensors"
        )
    return f"{source} is truncated or no checkpoint ({error.splitlines()[0][:100] if error else 'empty'})"


def load_into(module: nn.Module, checkpoint: Checkpoint, *, ignored: Sequence[str] = ()) -> None:
    """Give the module the checkpoint's tensors: every key used, or named as ignored.

    Args:
        ignored: prefixes of keys that the encoder does not need (decoder, head).

    Raises:
        MismatchError: a key is missing or unexpected, or a shape differs.
    """
    wanted = module.state_dict()
    state = {k: v for k, v in checkpoint.state.items() if k in wanted or not k.startswith(tuple(ignored))}
    missing, unexpected = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    if missing or unexpected:
        raise MismatchError(
            f"{checkpoint.source} does not fit the encoder: missing {_some(missing)}; "
            f"unexpected {_some(unexpected)}; give the weights of this encoder"
        )
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise MismatchError(
                f"{checkpoint.source} does not fit the encoder: {key} is {tuple(tensor.shape)} there, "
                f"{tuple(wanted[key].shape)} here; give the weights of this encoder"
            )
    floats = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    module.load_state_dict(floats, assign=True)


def _some(keys: Iterable[str], limit: int = 3) -> str:
    names = sorted(keys)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + rest


def weights_digest(encoder: object) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor of a module, sorted by name.

    Raises:
        InputError: the encoder is no ``nn.Module``, so what it computes with cannot be told.

    >>> weights_digest(nn.Identity())[:12]
    'e3b0c44298fc'
    """
    if not isinstance(encoder, nn.Module):
        raise InputError(f"an encoder must be a torch.nn.Module, not {type(encoder).__name__}")
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
