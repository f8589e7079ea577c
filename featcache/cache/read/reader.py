"""Reading a token cache at memory speed."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from featcache.cache.format.codecs import Bytes
from featcache.cache.format.dtypes import StoreDtype
from featcache.cache.format.layout import CLIP_KEY, VALID, ArraySpec, CacheLayout
from featcache.cache.format.ledger import Finished
from featcache.cache.format.metadata import read_attributes
from featcache.cache.read.choose import access_for
from featcache.cache.read.columns import ClipIndex, read_column, read_ids, read_scale, read_statistics
from featcache.cache.read.shard_files import ShardFiles
from featcache.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor

    from featcache.cache.read.dataset import TokenDataset
    from featcache.cache.verify import Damage
    from featcache.manifest import Manifest

    Rows = int | Sequence[int] | np.ndarray[Any, np.dtype[Any]] | Tensor


class TokenCache:
    """The finished clips of a cache, numbered 0..len-1 in shard order.

    Opening reads the metadata and the ledger; everything else is read when first asked for. Every file
    must have the length that the ledger says, and all but the tokens its checksum; where ``checked``, those
    too.
    Pickled, it is its path and how it is read: each process opens its own files.

    Attributes:
        path: of the cache
        layout: shapes, dtype and fingerprint
        reader: "map", "pread" or "preload": how tokens are read
    """

    def __init__(self, path: str | Path, reader: str = "auto", checked: bool = False) -> None:
        self.path = Path(path)
        self.attributes = read_attributes(self.path)
        self.layout = CacheLayout.from_attributes(self.attributes, self.path)
        self._finished = Finished(self.path, self.layout.shard_rows)
        self.clips = ClipIndex(self._finished.counts)
        self.files = ShardFiles(self.path, self.layout.shard_rows, self._finished)
        self._channel_scales: dict[int, Tensor | None] = {}
        self.reader, self._access = access_for(reader, self.files, self.clips, self.tokens_spec(None))
        self.checked = checked  # by now: it is no part of the reader's speed

    @classmethod
    def open(cls, path: str | Path, reader: str = "auto", *, checked: bool = False) -> Self:
        """Open the cache at ``path``.

        Args:
            reader: "map", "pread", "preload", or "auto": the variable FEATCACHE_READER,
                else a short measurement of the file system
            checked: compare each file of tokens with its checksum when it is first read: one pass over the
                files (11 GB/s from memory), for whoever makes numbers of them

        Raises:
            MissingError: there is no token cache.
            CacheError: it is damaged or of a later format.
        """
        return cls(path, reader, checked)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that unpickles a preloaded cache must not load it once more: the pages are in
        # the page cache, so it maps them.
        return type(self), (
            self.path,
            "map" if self.reader == "preload" else self.reader,
            self.checked,
        )

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        (F, T), size = self.grid, len(self) * len(self.layers) * self.tokens_spec().row_bytes
        layers = "" if len(self.layers) == 1 else f", layers {', '.join(map(str, self.layers))}"
        return (
            f"TokenCache({str(self.path)!r}: {self.fingerprint.get('encoder', '?')}, {len(self)} clips of "
            f"{F} x {T} tokens x {self.dim} {self.dtype}{layers}, {size / 1e9:.3g} GB)"
        )

    @overload
    def __getitem__(self, row: int) -> "np.ndarray[Any, Any]": ...
    @overload
    def __getitem__(self, row: slice) -> "np.ndarray[Any, Any]": ...
    def __getitem__(self, row: int | slice) -> "np.ndarray[Any, Any]":
        """The last layer's stored tokens of one clip (N, D), read-only: a view of the mapped file.

        A slice gives (n, N, D), a copy. bfloat16 comes as its bits in uint16, int4 as (N, D / 2) uint8;
        ``tokens`` gives floats.
        """
        spec = self.tokens_spec(None)
        if isinstance(row, slice):
            rows = range(len(self))[row]
            out = np.empty((len(rows), spec.row_bytes), dtype=np.uint8)
            if len(rows):
                self._access.read(spec, rows, out)
            return out.view(spec.zarr).reshape(len(rows), *spec.row_shape)
        (row,) = self._rows(row)
        return self._access.view(spec, row).view(spec.zarr).reshape(spec.row_shape)

    def __iter__(self) -> "Iterator[np.ndarray[Any, Any]]":
        return (self[row] for row in range(len(self)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def checked(self) -> bool:
        """Whether each file of tokens is compared with its checksum when it is first read."""
        return self.files.check_tokens

    @checked.setter
    def checked(self, wanted: bool) -> None:
        self.files.check_tokens = wanted

    def verify(self, *, progress: bool = False) -> "list[Damage]":
        """Read every file and compare its length and checksum; what is not as it was written."""
        from featcache.cache.verify import verify_cache

        return verify_cache(self.path, progress=progress)

    def close(self) -> None:
        """Let go of all files; what is read later opens them again."""
        self.files.close()

    def tokens(self, rows: "Rows", layer: int | None = None) -> "Tensor":
        """Tokens of several clips as floats, (B, N, D): quantized ones as float32, others as stored."""
        from featcache.cache.format.quantize import dequantize

        stored, scales = self.gather(rows, layer), self.scales(rows, layer)
        return dequantize(stored, scales, self.dtype, self.channel_scale(layer))

    def mask(self, rows: "Rows") -> "Tensor":
        """Which tokens of several clips stand for audio, (B, N) bool: what heads take as ``valid``."""
        import torch

        counts = torch.from_numpy(self.num_valid[self._rows(rows)].astype(np.int64))
        return torch.arange(self.num_tokens) < counts.unsqueeze(1)

    def gather(self, rows: "Rows", layer: int | None = None, out: "Tensor | None" = None) -> "Tensor":
        """Tokens of several clips as stored, copied into ``out`` (which may be pinned) if given.

        Shape:
            - output: (B, N, D) float16, bfloat16, float32 or int8; (B, N, D / 2) uint8 for int4

        Raises:
            IndexError: a row is not in -len..len-1.
            InputError: ``out`` does not fit.
        """
        return self._gather(self.tokens_spec(layer), self.store.torch_name, rows, out)

    def scales(self, rows: "Rows", layer: int | None = None) -> "Tensor | None":
        """The scales of int8 and int4 tokens, (B, N) float32; None for other dtypes."""
        if not self.store.scaled:
            return None
        return self._gather(self.layout.scale(self._layer(layer)), "float32", rows, None)

    def channel_scale(self, layer: int | None = None) -> "Tensor | None":
        """The scales of int8 and int4 channels, (D,) float32; None where all are one."""
        layer = self._layer(layer)
        if not self.layout.scales_channels or not len(self):
            return None
        if layer not in self._channel_scales:
            import torch

            scale = read_scale(self.path, self.layout.channel_scale(layer))
            self._channel_scales[layer] = None if (scale == 1).all() else torch.from_numpy(scale)
        return self._channel_scales[layer]

    def channel_statistics(self, layer: int | None = None) -> "np.ndarray[Any, Any] | None":
        """Count, mean, sd and largest magnitude of each channel over all valid tokens, (4, D) float64.

        The sd within a clip is that of every eighth token. None where a cache of format 1 lacks them.
        """
        from featcache.cache.format.channels import merge

        if not self.layout.channels:
            return None
        tables = read_statistics(self.path, self.layout.statistics(self._layer(layer)), self._finished)
        return merge(tables, self.dim)

    def prefetch(self, rows: "Rows", layer: int | None = None) -> None:
        """Have the tokens of these clips read ahead; returns at once."""
        wanted = self._rows(rows)
        self._access.prefetch(self.tokens_spec(layer), wanted)
        if self.store.scaled:
            self._access.prefetch(self.layout.scale(self._layer(layer)), wanted)

    def mean(self, rows: "Rows | None" = None, layer: int | None = None) -> "Tensor":
        """Each clip's mean over its valid tokens, (B, D) float32; of all clips unless rows are given."""
        return self._vectors("mean", rows, layer)

    def cls(self, rows: "Rows | None" = None, layer: int | None = None) -> "Tensor | None":
        """Each clip's cls token, (B, D) float32; None where the encoder has none."""
        return self._vectors("cls", rows, layer) if self.has_cls else None

    @cached_property
    def num_valid(self) -> "np.ndarray[Any, np.dtype[np.int32]]":
        """How many of each clip's tokens stand for audio, (n,); they come first."""
        return read_column(self.path, VALID, self._finished)

    @cached_property
    def keys(self) -> Bytes:
        """Each clip's key, (n, 16): a digest of its audio content and segment."""
        return read_column(self.path, CLIP_KEY, self._finished)

    @cached_property
    def ids(self) -> list[str]:
        """Each clip's id in the manifest that it was extracted for."""
        return read_ids(self.path, self._finished)

    def find(self, ids: Iterable[str]) -> list[int]:
        """The rows of clips by their ids.

        Raises:
            InputError: the cache has no clip of that id; the message has the nearest.
        """
        return [self._row_of(name) for name in ([ids] if isinstance(ids, str) else ids)]

    def rows_of(self, keys: Iterable[bytes]) -> list[int | None]:
        """The row of each key; None where the cache lacks it."""
        return [self._row_of_key.get(key) for key in keys]

    def dataset(
        self,
        manifest: "Manifest | str | Path | None" = None,
        *,
        split: str | None = None,
        layer: int | None = None,
    ) -> "TokenDataset":
        """The clips as a map-style torch dataset of (tokens, valid), or (tokens, valid, target) with labels.

        Args:
            manifest: whose labels are joined; its clips are found by their audio, as in ``probe``
            split: "train", "valid" or "test" of the manifest; all of its clips unless given

        Raises:
            InputError: clips that are not in the cache, or a split that no clip has.
        """
        from featcache.cache.read.dataset import TokenDataset, choose_split, targets_of
        from featcache.cache.read.join import join
        from featcache.manifest import Manifest, load_manifest

        if manifest is None:
            if split is not None:
                raise InputError("a cache knows no splits; give the manifest that has them")
            return TokenDataset(self, range(len(self)), self.ids, layer=layer)
        labels = manifest if isinstance(manifest, Manifest) else load_manifest(manifest)
        joined = join(self, labels, logging.getLogger("featcache").info)
        single = all(len(clip.labels) == 1 for clip, _ in joined)
        clips, rows = zip(*choose_split(joined, split, labels.path), strict=True)
        return TokenDataset(
            self, rows, [clip.id for clip in clips], layer=layer, classes=labels.classes,
            targets=targets_of(clips, labels.classes, single),
        )  # fmt: skip

    def stored(self, row: int) -> dict[str, Bytes]:
        """One clip's bytes in every array, by the array's name; uncompressed."""
        return {spec.name: self._access.view(spec, row) for spec in self.layout.arrays()}

    def as_zarr(self) -> Any:
        """The same cache as a read-only ``zarr.Group``, for what zarr does better than this reader."""
        import zarr

        return zarr.open_group(self.path, mode="r")

    @property
    def store(self) -> StoreDtype:
        """The storage format of the tokens."""
        return self.layout.store

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

    def _vectors(self, kind: str, rows: "Rows | None", layer: int | None) -> "Tensor":
        spec = self.layout.vector(kind, self._layer(layer))
        if rows is not None:  # without reading those of others
            return self._gather(spec, "float32", rows, None)
        import torch

        return torch.from_numpy(read_column(self.path, spec, self._finished))

    def _gather(self, spec: ArraySpec, dtype_name: str, rows: "Rows", out: "Tensor | None") -> "Tensor":
        import torch

        wanted = self._rows(rows)
        dtype, shape = getattr(torch, dtype_name), (len(wanted), *spec.row_shape)
        if out is None:
            out = torch.empty(shape, dtype=dtype)
        elif out.shape != shape or out.dtype != dtype or not out.is_contiguous() or out.is_cuda:
            raise InputError(
                f"gather needs a contiguous CPU buffer {shape} of {dtype}, "
                f"found {tuple(out.shape)} of {out.dtype}"
            )
        if wanted:
            self._access.read(spec, wanted, out.view(torch.uint8).numpy().reshape(len(wanted), -1))
        return out

    def _rows(self, rows: "Rows") -> list[int]:
        """Rows counted from 0; negative ones count from the end."""
        wanted = np.atleast_1d(np.asarray(rows))
        if wanted.size and wanted.dtype.kind not in "iu":
            raise InputError(f"rows are whole numbers, not {wanted.dtype}; find(ids) gives those of ids")
        counted = np.where(wanted < 0, wanted + len(self), wanted)
        found: list[int] = self.clips.check(counted).tolist()
        return found

    def _row_of(self, name: str) -> int:
        if name not in self._row_of_id:
            raise unknown(
                f"clip in {self.path}", name, get_close_matches(name, self.ids, n=3) or self.ids[:3]
            )
        return self._row_of_id[name]

    @cached_property
    def _row_of_id(self) -> dict[str, int]:
        return {name: row for row, name in reversed(list(enumerate(self.ids)))}
