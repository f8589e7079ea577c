"""What a file with a saved head says of itself, read and checked before any tensor is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from featcache.arguments import COUNT
from featcache.errors import InputError, MissingError
from featcache.heads.options import SIZES

# A head may be saved in any of the usual float formats; it computes in float32.
_KINDS = dict.fromkeys(("F64", "F32", "F16", "BF16"), "float") | {
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


class HeadFile:
    """A safetensors file as ``save`` writes it.

    ``name`` of the head, its ``sizes`` (dim, num_classes and, where it has them, grid and num_layers),
    its ``options``; ``config`` as the caller gave it; ``kinds`` of the tensors: "float (3, 24)".

    Raises:
        MissingError: there is no such file.
        InputError: it is not a head written by ``save``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise MissingError(f"no saved head at {path}; train one with 'featcache probe'")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.kinds = {name: _kind(part.get_dtype(), part.get_shape()) for name, part in parts.items()}
        except (SafetensorError, OSError) as error:
            raise self._refused(str(error)) from error
        head = self._object(metadata, "head")
        self.config = self._object(metadata, "config")
        self.name: str = head.pop("name", None)
        if not isinstance(self.name, str):
            raise self._refused("it does not name a head")
        self.sizes: dict[str, Any] = {
            key: self._size(key, head.pop(key, None))
            for key in ("dim", "num_classes", *(size for size in SIZES if size in head))
        }
        self.options = head

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, on the CPU."""
        with safe_open(self.path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in self.kinds}

    def _object(self, metadata: Mapping[str, str], key: str) -> dict[str, Any]:
        if key not in metadata:
            raise self._refused(f"its metadata have no {key!r}")
        try:
            value = json.loads(metadata[key])
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise self._refused(f"its {key!r} is no JSON object")
        return value

    def _size(self, key: str, value: Any) -> int | tuple[int, int] | None:
        """A size as ``build_head`` takes it."""
        if key == "grid":
            if value is None:
                return None
            if isinstance(value, list) and len(value) == 2 and all(map(COUNT.fits, value)):
                return value[0], value[1]
        elif COUNT.fits(value):
            return int(value)
        wanted = "(F, T)" if key == "grid" else "a whole number, 1 or more"
        raise self._refused(f"it says {key}={value!r:.60}, not {wanted}")

    def _refused(self, why: str) -> InputError:
        return InputError(
            f"{self.path} is not a head saved by featcache ({why}); train one with 'featcache probe'"
        )


def kind_of(tensor: Tensor) -> str:
    """What a file says of a tensor.

    >>> import torch
    >>> kind_of(torch.zeros(3, 24))
    'float (3, 24)'
    """
    dtype = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return f"{dtype} {tuple(tensor.shape)}"


def _kind(dtype: str, shape: Sequence[int]) -> str:
    return f"{_KINDS.get(dtype, dtype)} {tuple(shape)}"
