"""Reading a token cache at memory speed."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.layout import CLIP_KEY, VALID, ArraySpec, CacheLayout
from featcache.cache.format.ledger import read_ledger
from featcache.cache.format.metadata import read_attributes
from featcache.cache.read.choose import access_for
from featcache.cache.read.columns import ClipIndex, read_column, read_ids
from featcache.cache.read.shard_files import ShardFiles
from featcache.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from featcache.cache.read.dataset import TokenDataset

Floats = np.ndarray[Any, np.dtype[np.float32]]


class TokenCache:
    """The finished clips of a cache, numbered 0..len-1 in shard order.

    Opening reads the metadata and the ledger; everything else is read when first asked for.
    Pickled, it is its path and reader: each process opens its own files.

    Attributes:
        path: of the cache
        layout: shapes, dtype and fingerprint
        reader: "map", "pread" or "preload": how tokens are read
    """

    def __init__(self, path: str | Path, reader: str = "auto") -> None:
        self.path = Path(path)
        self.attributes = read_attributes(self.path)
        self.layout = CacheLayout.from_attributes(self.attributes)
        self.clips = ClipIndex({entry.shard: entry.clips for entry in read_ledger(self.path)})
        self.files = ShardFiles(self.path, self.layout.shard_rows)
        self.reader, self._access = access_for(reader, self.files, self.clips, self.tokens_spec(None))

    @classmethod
    def open(cls, path: str | Path, reader: str = "auto") -> Self:
        """Open the cache at ``path``.

        Args:
            reader: "map", "pread", "preload", or "auto": the variable FEATCACHE_READER,
                else a short measurement of the file system

        Raises:
            MissingError: there is no token cache.
            CacheError: it is damaged or of a later format.
        """
        return cls(path, reader)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that unpickles a preloaded cache must not load it once more: the pages are in
        # the page cache, so it maps them.
        return type(self), (self.path, "map" if self.reader == "preload" else self.reader)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, row: int) -> "np.ndarray[Any, Any]":
        """The last layer's stored tokens of one clip (N, D), read-only; a view of the mapped file.

        bfloat16 comes as its bits in uint16, int4 as (N, D / 2) uint8.
        """
        spec = self.tokens_spec(None)
        row = row + len(self) if row < 0 else row
        return self._access.view(spec, row).view(spec.zarr).reshape(spec.row_shape)

    def gather(
        self, rows: "Sequence[int] | Tensor", layer: int | None = None, out: "Tensor | None" = None
    ) -> "Tensor":
        """Tokens of several clips as stored, copied into ``out`` (which may be pinned) if given.

        Shape:
            - output: (B, N, D) float16, bfloat16, float32 or int8; (B, N, D / 2) uint8 for int4
        """
        return self._gather(self.tokens_spec(layer), self.layout.store.torch_name, _as_list(rows), out)

    def scales(self, rows: "Sequence[int] | Tensor", layer: int | None = None) -> "Tensor | None":
        """The scales of int8 and int4 tokens, (B, N) float32; None for other dtypes."""
        if not self.layout.store.scaled:
            return None
        return self._gather(self.layout.scale(self._layer(layer)), "float32", _as_list(rows), None)

    def prefetch(self, rows: "Sequence[int] | Tensor", layer: int | None = None) -> None:
        """Have the tokens of these clips read ahead; returns at once."""
        self._access.prefetch(self.tokens_spec(layer), _as_list(rows))
        if self.layout.store.scaled:
            self._access.prefetch(self.layout.scale(self._layer(layer)), _as_list(rows))

    def vectors(self, kind: str, rows: "Sequence[int] | Tensor", layer: int | None = None) -> "Tensor":
        """The "mean" or "cls" of several clips, (B, D) float32, without reading those of others."""
        spec = self.layout.vector(kind, self._layer(layer))
        return self._gather(spec, "float32", _as_list(rows), None)

    def mean(self, layer: int | None = None) -> Floats:
        """Each clip's mean over its valid tokens, (n, D)."""
        return read_column(self.path, self.layout.vector("mean", self._layer(layer)), self.clips)

    def cls(self, layer: int | None = None) -> Floats | None:
        """Each clip's cls token, (n, D); None where the encoder has none."""
        if not self.has_cls:
            return None
        return read_column(self.path, self.layout.vector("cls", self._layer(layer)), self.clips)

    @cached_property
    def valid(self) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """How many of each clip's tokens stand for audio, (n,); they come first."""
        return read_column(self.path, VALID, self.clips)

    @cached_property
    def keys(self) -> Bytes:
        """Each clip's key, (n, 16): a digest of its audio content and segment."""
        return read_column(self.path, CLIP_KEY, self.clips)

    @cached_property
    def ids(self) -> list[str]:
        """Each clip's id in the manifest that it was extracted for."""
        return read_ids(self.path, self.clips)

    def rows_of(self, keys: Iterable[bytes]) -> list[int | None]:
        """The row of each key; None where the cache lacks it."""
        return [self._row_of_key.get(key) for key in keys]

    def dataset(self, layer: int | None = None) -> "TokenDataset":
        """The clips as a map-style torch dataset of (tokens, cls or mean, valid)."""
        from featcache.cache.read.dataset import TokenDataset

        return TokenDataset(self, layer)

    def stored(self, row: int) -> dict[str, Bytes]:
        """One clip's bytes in every array, by the array's name; uncompressed."""
        return {spec.name: self._access.view(spec, row) for spec in self.layout.arrays()}

    def as_zarr(self) -> Any:
        """The same cache as a read-only ``zarr.Group``, for what zarr does better than this reader."""
        import zarr

        return zarr.open_group(self.path, mode="r")

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the tokens are: encoder, weights, preprocessing, numerics."""
        return self.layout.fingerprint

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are kept."""
        return self.layout.layers

    @property
    def num_tokens(self) -> int:
        """N of a full clip."""
        return self.layout.num_tokens

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.layout.dim

    @property
    def grid(self) -> tuple[int, int]:
        """(F, T) of a full clip; token t * F + f."""
        return self.layout.grid

    @property
    def has_cls(self) -> bool:
        """Whether cls tokens are kept."""
        return self.layout.has_cls

    @property
    def dtype(self) -> str:
        """The storage dtype's name."""
        return self.layout.dtype

    @property
    def complete(self) -> bool:
        """Whether its last writer came to its end (some clips may have failed)."""
        return bool(self.attributes.get("complete"))

    @cached_property
    def _row_of_key(self) -> dict[bytes, int]:
        keys = [key.tobytes() for key in self.keys]
        return {key: row for row, key in reversed(list(enumerate(keys)))}  # the first of equal keys

    def _layer(self, layer: int | None) -> int:
        layer = max(self.layers) if layer is None else layer
        if layer not in self.layers:
            raise unknown("layer", str(layer), [str(known) for known in self.layers])
        return layer

    def tokens_spec(self, layer: int | None = None) -> ArraySpec:
        """The array that holds a layer's tokens."""
        return self.layout.tokens(self._layer(layer))

    def _gather(self, spec: ArraySpec, dtype_name: str, rows: list[int], out: "Tensor | None") -> "Tensor":
        import torch

        dtype = getattr(torch, dtype_name)
        shape = (len(rows), *spec.row_shape)
        if out is None:
            out = torch.empty(shape, dtype=dtype)
        elif out.shape != shape or out.dtype != dtype or not out.is_contiguous() or out.is_cuda:
            raise InputError(
                f"gather needs a contiguous CPU buffer {shape} of {dtype}, "
                f"found {tuple(out.shape)} of {out.dtype}"
            )
        if rows:
            self._access.read(spec, rows, out.view(torch.uint8).numpy().reshape(len(rows), -1))
        return out


def _as_list(rows: "Sequence[int] | Tensor") -> list[int]:
    return np.asarray(rows, dtype=np.int64).reshape(-1).tolist()
