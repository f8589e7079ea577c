"""A trained head in one safetensors file; binary prototypes are stored as bits.

A file is not trusted: it runs no code, and what it says of its sizes must be what its tensors have.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as serialize
from torch import Tensor

from featcache.cache.format.durable import replace_file
from featcache.errors import FeatcacheError, InputError, MismatchError
from featcache.heads.base import Head, HeadSpec
from featcache.heads.fold import COUNT, folded
from featcache.heads.head_file import HeadFile, kind_of
from featcache.heads.prototypical import ProtoBin
from featcache.heads.registry import ALIASES, HEADS, build_head, spec_of

BITS = "prototypes.bits"


def save(head: Head, path: str | Path, config: dict[str, Any] | None = None) -> None:
    """Write a head for use: its weights, how to build it, and what the caller wants remembered.

    The latent floats behind binary prototypes are not kept, only their signs: 32 times smaller,
    the same logits, but not a state to go on training from. What is left of the floats is an array
    (0, D): it says how many of the bits count. A batch norm becomes part of the linear layer (``fold``).

    Args:
        config: JSON values stored beside the weights, e.g. class names and the cache's fingerprint.

    Raises:
        InputError: the head was not built by ``build_head``, so it does not know how.
    """
    if not hasattr(head, "config"):
        name = type(head).__name__
        raise InputError(f"this {name} does not know how it was built; make it with build_head({name}, ...)")
    weights, changed = folded(head)
    state = {name: tensor.contiguous() for name, tensor in weights.items()}
    if isinstance(head, ProtoBin):
        state[BITS] = signs_to_bits(state["prototypes"])
        state["prototypes"] = state["prototypes"][:0].clone()
    metadata = {"head": json.dumps({**head.config, **changed}), "config": json.dumps(config or {})}
    replace_file(Path(path), serialize(state, metadata=metadata), durable=False)


def load(path: str | Path, head: type[Head] | HeadSpec | None = None) -> Head:
    """Read a saved head, in evaluation mode; its logits are those of the head that was saved.

    A head of a user's is not looked for: a file that names code must not be able to run it. Give the
    class, or register it under the name that the file has.

    Args:
        head: the class or spec of the saved head, where it is neither built in nor registered

    Raises:
        MissingError: no such file.
        MismatchError: the tensors are not those of a head of these sizes.
        InputError: the file is not a head written by ``save``, or one of a class that is not given.
    """
    file = HeadFile(path)
    spec = _spec(file, head)
    with torch.device("meta"):  # no memory yet: the sizes may be anything
        wanted = _kinds(_build(file, spec, "on the meta device, as load first does"))
    _compare(file, wanted)
    from featcache.heads.predicting.waveforms import LoadedHead  # which needs the encoders, in seconds

    loaded = _build(file, spec)
    loaded.load_state_dict(_unpacked(file.tensors()))
    loaded.predict = LoadedHead(loaded, file.config, file.path)
    return loaded.eval()


def load_config(path: str | Path) -> dict[str, Any]:
    """The ``config`` that was given to ``save``.

    Raises:
        MissingError: no such file.
        InputError: the file is not a head written by ``save``.
    """
    return HeadFile(path).config


def _spec(file: HeadFile, head: type[Head] | HeadSpec | None) -> HeadSpec:
    """The spec of the class that is given, or of the registered one that the file names."""
    name = file.name
    if head is not None:
        return replace(spec_of(head), name=name)
    known = HEADS.get(ALIASES.get(name, name))
    if known is None:
        raise InputError(
            f"{file.path} holds a head {name!r} that is not registered, and loading runs no code that a file "
            f"names; register it first with register_head(MyHead, name={name!r}), or pass it: "
            "load(path, head=MyHead)"
        )
    return known


def _build(file: HeadFile, spec: HeadSpec, where: str = "here") -> Head:
    """A head as the file says; whatever that makes the head's class raise is the file's fault."""
    try:
        return build_head(spec, **file.sizes, **file.options)
    except FeatcacheError as error:
        raise InputError(f"{file.path} describes what cannot be built: {error}") from error
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"{file.path} describes what cannot be built {where}: {_title(file)} raised "
            f"{type(error).__name__}: {why}; save it again"
        ) from error


def _title(file: HeadFile) -> str:
    return f"a head {file.name!r} of dim={file.sizes['dim']} and num_classes={file.sizes['num_classes']}"


def _kinds(head: Head) -> dict[str, str]:
    """What ``save`` writes of a head."""
    state = head.state_dict()
    if isinstance(head, ProtoBin):
        P, D = state["prototypes"].shape
        state |= {"prototypes": torch.empty(0, D), BITS: torch.empty(P, -(-D // 8), dtype=torch.uint8)}
    return {name: kind_of(tensor) for name, tensor in state.items() if name != COUNT}


def _compare(file: HeadFile, wanted: dict[str, str]) -> None:
    """Hold the tensors of a file to those of the head that it says it is."""
    for name in sorted(wanted.keys() | file.kinds.keys()):
        found, own = file.kinds.get(name, "nothing"), wanted.get(name, "nothing")
        if found != own:
            raise MismatchError(
                f"{file.path} has {found} for {name!r}, where {_title(file)} has {own}; save it again, "
                "or give the class that it was saved from"
            )


def _unpacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if BITS in state:
        state["prototypes"] = bits_to_signs(state.pop(BITS), state["prototypes"].shape[1])
    return state


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
