"""What a token cache holds: which arrays, of which shape, and how many clips to a shard."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from featcache.cache.format.codecs import codec_named
from featcache.cache.format.dtypes import StoreDtype, store_dtype
from featcache.cache.format.shard_index import ids_file
from featcache.errors import CacheError, InputError

# A shard is what a crash can lose, what becomes durable in one go and what verify reports: some
# seconds of encoding.
SHARD_BYTES = 192 * 2**20
MAX_SHARD_CLIPS = 4096
MOST_SHARD_CLIPS = 65_536  # that can be asked for: a shard's vectors wait in memory
MAX_SIZE = 2**24  # of tokens, widths and clips a shard that a layout may tell of
MAX_LAYER = 9999
KEY_BYTES = 16

FORMAT = 2

_ITEM_BYTES = {"float16": 2, "float32": 4, "float64": 8, "uint16": 2, "int8": 1, "uint8": 1, "int32": 4}


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """One Zarr array of a cache; axis 0 counts clips, or shards, or there is one row alone."""

    name: str  # path in the group, "tokens/12"
    row_shape: tuple[int, ...]  # of one clip
    zarr: str  # Zarr data type
    axes: tuple[str, ...]  # names of all axes
    sharded: bool = False  # one inner chunk a clip, with an index; else one plain chunk a shard
    codec: str | None = None  # compressor of the inner chunks
    per: Literal["clip", "shard", "cache"] = "clip"  # what has a row; that of a cache carries its checksum

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return _ITEM_BYTES[self.zarr]

    @property
    def row_bytes(self) -> int:
        """Bytes of one clip, uncompressed."""
        return self.item_bytes * prod(self.row_shape)

    def chunk_file(self, shard: int) -> str:
        """Path below the cache of the file that holds this shard."""
        return f"{self.name}/c.{shard}" + ".0" * len(self.row_shape)

    @property
    def only_file(self) -> str:
        """Path below the cache of the file of an array that has one row."""
        return f"{self.name}/c" + ".0" * len(self.row_shape)


@dataclass(frozen=True, kw_only=True)
class CacheLayout:
    """What fixes the shape of a cache and the identity of its tokens."""

    fingerprint: dict[str, Any]  # encoder, weights, preprocessing, numerics: JSON values
    layers: tuple[int, ...]
    num_tokens: int  # N of a full clip
    dim: int
    grid: tuple[int, int]  # (F, T), N = F * T
    has_cls: bool
    dtype: str = "float16"
    codec: str | None = None
    shard_clips: int | None = None  # None: so that a shard of all layers is about 192 MB
    channels: bool = True  # statistics of channels are kept, and scales of int8 and int4; not in format 1

    def __post_init__(self) -> None:
        """Raises InputError: a field is of another type, out of range, or at odds with another."""
        self._check()
        self.store.packed(self.dim)
        codec_named(self.codec)

    def _check(self) -> None:
        # Types too: the fields may come from a file that anyone wrote, and layers become paths.
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise InputError(f"a cache needs one or more different layers, not {self.layers}")
        for layer in self.layers:
            _whole("each of layers", layer, 0, MAX_LAYER)
        _whole("num_tokens", self.num_tokens, 1, MAX_SIZE)
        _whole("dim", self.dim, 1, MAX_SIZE)
        for size in self.grid:
            _whole("each side of grid", size, 1, MAX_SIZE)
        if prod(self.grid) != self.num_tokens or len(self.grid) != 2:
            raise InputError(f"grid {self.grid} does not make {self.num_tokens} tokens")
        if self.shard_clips is not None:
            _whole("shard_clips", self.shard_clips, 1, MAX_SIZE)
        for name in ("has_cls", "channels"):
            if type(getattr(self, name)) is not bool:
                raise InputError(f"{name} is true or false, not {getattr(self, name)!r}")
        if not isinstance(self.fingerprint, dict):
            raise InputError(f"fingerprint is a record of fields, not {self.fingerprint!r}")

    @property
    def store(self) -> StoreDtype:
        """The storage format of the tokens."""
        return store_dtype(self.dtype)

    @property
    def shard_rows(self) -> int:
        """S: clips in a full shard."""
        if self.shard_clips is not None:
            return self.shard_clips
        clip_bytes = sum(self.tokens(layer).row_bytes for layer in self.layers)
        return min(max(SHARD_BYTES // clip_bytes, 1), MAX_SHARD_CLIPS)

    @property
    def clip_bytes(self) -> int:
        """Bytes of one clip, uncompressed: tokens, scales, vectors and key."""
        return sum(spec.row_bytes for spec in self.arrays())

    def tokens(self, layer: int) -> ArraySpec:
        """The token array of a layer."""
        shape = (self.num_tokens, self.store.packed(self.dim))
        axes = ("clip", "token", "byte" if self.store.bits == 4 else "dim")
        return ArraySpec(
            name=f"tokens/{layer}",
            row_shape=shape,
            zarr=self.store.zarr,
            axes=axes,
            sharded=True,
            codec=self.codec,
        )

    def scale(self, layer: int) -> ArraySpec:
        """The scales of a layer's tokens; only int8 and int4 caches have them."""
        return ArraySpec(
            name=f"scale/{layer}", row_shape=(self.num_tokens,), zarr="float32", axes=("clip", "token")
        )

    def vector(self, kind: str, layer: int) -> ArraySpec:
        """The array of a layer's "mean" or "cls"."""
        return ArraySpec(name=f"{kind}/{layer}", row_shape=(self.dim,), zarr="float32", axes=("clip", "dim"))

    def statistics(self, layer: int) -> ArraySpec:
        """Of each shard, the count, mean, sd and largest magnitude of a layer's channels."""
        return ArraySpec(
            name=f"statistics/{layer}", row_shape=(4, self.dim), zarr="float64",
            axes=("shard", "statistic", "channel"), per="shard",
        )  # fmt: skip

    def channel_scale(self, layer: int) -> ArraySpec:
        """The scales of a layer's channels, the same for all clips."""
        return ArraySpec(
            name=f"channel_scale/{layer}", row_shape=(self.dim,), zarr="float32", axes=("channel",),
            per="cache",
        )  # fmt: skip

    @property
    def scales_channels(self) -> bool:
        """Whether channels have scales."""
        return self.channels and self.store.scaled

    def all_arrays(self) -> list[ArraySpec]:
        """Every array of the cache."""
        statistics = [self.statistics(layer) for layer in self.layers] if self.channels else []
        scales = [self.channel_scale(layer) for layer in self.layers] if self.scales_channels else []
        return [*self.arrays(), *statistics, *scales]

    def shard_arrays(self) -> list[ArraySpec]:
        """The arrays of which each shard has a file."""
        return [spec for spec in self.all_arrays() if spec.per != "cache"]

    def shard_files(self, shard: int) -> list[str]:
        """Paths below the cache of a shard's files."""
        return [*(spec.chunk_file(shard) for spec in self.shard_arrays()), ids_file(shard)]

    def arrays(self) -> list[ArraySpec]:
        """The arrays that have a row for each clip, in the order in which a shard's files are written."""
        specs = [self.tokens(layer) for layer in self.layers]
        if self.store.scaled:
            specs += [self.scale(layer) for layer in self.layers]
        for kind in ("cls", "mean") if self.has_cls else ("mean",):
            specs += [self.vector(kind, layer) for layer in self.layers]
        return [*specs, VALID, CLIP_KEY]

    def attributes(self) -> dict[str, Any]:
        """The part of the group's attributes that this layout fixes."""
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "store": {
                "dtype": self.dtype,
                "codec": self.codec,
                "shard_clips": self.shard_rows,
                "channels": self.channels,
            },
            "grid": list(self.grid),
            "num_tokens": self.num_tokens,
            "dim": self.dim,
            "layers": list(self.layers),
            "has_cls": self.has_cls,
        }

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], path: object) -> "CacheLayout":
        """The layout that ``attributes`` came from.

        Args:
            path: of the cache, for the message

        Raises:
            CacheError: a field is missing or is not what it can be.
        """
        try:
            frequency, time = attributes["grid"]
            return cls(
                fingerprint=attributes["fingerprint"],
                layers=tuple(attributes["layers"]),
                num_tokens=attributes["num_tokens"],
                dim=attributes["dim"],
                grid=(frequency, time),
                has_cls=attributes["has_cls"],
                dtype=attributes["store"]["dtype"],
                codec=attributes["store"]["codec"],
                shard_clips=_whole("shard_clips", attributes["store"]["shard_clips"], 1, MAX_SIZE),
                channels=attributes["format"] > 1 and attributes["store"]["channels"],
            )
        except KeyError as error:
            raise _damaged(path, f"there is no {error.args[0]!r}") from None
        except (TypeError, ValueError) as error:  # InputError is a ValueError
            raise _damaged(path, str(error)) from None


def _whole(name: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{name} is a whole number from {low} to {high}, not {value!r}")
    return value


def _damaged(path: object, why: str) -> CacheError:
    return CacheError(
        f"the attributes in {path}/zarr.json are damaged: {why}; copy the cache again, or remove it"
    )


VALID = ArraySpec(name="valid", row_shape=(), zarr="int32", axes=("clip",))
CLIP_KEY = ArraySpec(name="clip_key", row_shape=(KEY_BYTES,), zarr="uint8", axes=("clip", "byte"))
