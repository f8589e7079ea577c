"""A cache derived from another without the encoder: other dtype, fewer layers, compressed or not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from featcache.arguments import check, count_up_to
from featcache.cache.format.durable import replace_file, writing
from featcache.cache.format.layout import MOST_SHARD_CLIPS, CacheLayout
from featcache.cache.read.reader import TokenCache
from featcache.cache.write.writer import CacheWriter
from featcache.errors import InputError, unknown
from featcache.files import read_bytes
from featcache.records import FAILED, OWN, RUNS

_CLIPS_AT_ONCE = 16
_RECORDS = (RUNS, FAILED, *OWN)  # what extraction noted about the clips


def convert_cache(
    source: str | Path,
    target: str | Path,
    *,
    dtype: str | None = None,
    layers: Sequence[int] | None = None,
    codec: str | None = None,
    shard_clips: int | None = None,
    progress: bool = False,
) -> TokenCache:
    """Derive ``target`` from ``source``; the same call goes on after a crash.

    The fingerprint stays the parent's, for it says where the tokens come from; the attribute
    ``parent`` says what was done. Mean and cls vectors, keys and ids are copied as they are.

    Args:
        dtype: of the stored tokens; the parent's unless given
        layers: to keep; the parent's unless given
        codec: "zstd" or "blosc" for an archive copy; none unless given

    Raises:
        InputError: a layer that the parent lacks, or a value beyond the range of ``dtype``.
        MismatchError: ``target`` is something else already.
    """
    check({"shard_clips": count_up_to(MOST_SHARD_CLIPS)}, {"shard_clips": shard_clips})
    parent = TokenCache.open(source, checked=True)  # a copy of damage would have checksums of its own
    if Path(target).resolve() == parent.path.resolve():
        raise InputError(f"cannot convert {source} into itself; name another path")
    layout = _layout(parent, dtype, layers, codec, shard_clips)
    with CacheWriter.create_or_open(target, layout) as writer:
        if parent.dtype == layout.dtype:
            writer.first.check_scales(parent)
        writer.annotate(parent=_provenance(parent), clips_expected=len(parent))
        rows = [row for row, key in enumerate(parent.keys) if key.tobytes() not in writer.done_keys]
        with tqdm(total=len(rows), unit="clip", desc="convert", disable=None if progress else True) as bar:
            for start in range(0, len(rows), _CLIPS_AT_ONCE):
                parent.prefetch(rows[start + _CLIPS_AT_ONCE : start + 2 * _CLIPS_AT_ONCE])
                _copy(parent, writer, rows[start : start + _CLIPS_AT_ONCE])
                bar.update(min(_CLIPS_AT_ONCE, len(rows) - start))
    for name in _RECORDS:
        if (parent.path / name).exists():
            with writing(Path(target)):
                replace_file(Path(target) / name, read_bytes(parent.path / name))
    return TokenCache.open(target)


def _layout(
    parent: TokenCache,
    dtype: str | None,
    layers: Sequence[int] | None,
    codec: str | None,
    shard_clips: int | None,
) -> CacheLayout:
    for layer in layers or ():
        if layer not in parent.layers:
            raise unknown("layer", str(layer), [str(known) for known in parent.layers])
    return replace(
        parent.layout,
        dtype=dtype or parent.dtype,
        layers=tuple(sorted(layers)) if layers else parent.layers,
        codec=codec,
        shard_clips=shard_clips,
        channels=True,
    )


def _provenance(parent: TokenCache) -> dict[str, object]:
    return {
        "path": str(parent.path.resolve()),
        "dtype": parent.dtype,
        "layers": list(parent.layers),
        "parent": parent.attributes.get("parent"),
    }


def _copy(parent: TokenCache, writer: CacheWriter, rows: Sequence[int]) -> None:
    layers = writer.layout.layers
    if parent.dtype == writer.layout.dtype:
        for row in rows:
            writer.add_stored(parent.ids[row], parent.keys[row].tobytes(), parent, row)
        return
    tokens = {layer: parent.tokens(rows, layer) for layer in layers}
    means = {layer: parent.mean(rows, layer) for layer in layers}
    cls = {layer: vectors for layer in layers if (vectors := parent.cls(rows, layer)) is not None}
    for i, row in enumerate(rows):
        writer.add(
            parent.ids[row],
            parent.keys[row].tobytes(),
            _one(tokens, i),
            _one(cls, i) if cls else None,
            int(parent.num_valid[row]),
            mean=_one(means, i),
        )


def _one(batch: Mapping[int, Tensor], i: int) -> dict[int, Tensor]:
    return {layer: values[i] for layer, values in batch.items()}
