"""The token cache: written once, mapped at memory speed, checked, converted and reused.

- ``format``: what lies on disk: layout, metadata, ledger, shard index, number formats, durable files
- ``write``: the writer, from clips to whole shards, and what a crash leaves
- ``read``: ``TokenCache``, ways of reading, torch datasets, and joining a manifest
- ``convert``: a cache derived from another without the encoder
- ``verify``: damaged shards found and taken out
- ``remove``: the files of a cache taken away, and nothing else
- ``remote``: caches in buckets and on far disks
- ``survey``: what caches are here and what one holds

Names are imported when first used: looking at a cache does not wait for torch.
"""

from typing import TYPE_CHECKING

from featcache.lazy import lazy

__all__ = ["CacheLayout", "CacheWriter", "TokenCache", "dequantize"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "CacheLayout": "featcache.cache.format.layout",
        "CacheWriter": "featcache.cache.write.writer",
        "TokenCache": "featcache.cache.read.reader",
        "dequantize": "featcache.cache.format.quantize",
    },
)

if TYPE_CHECKING:
    from featcache.cache.format.layout import CacheLayout
    from featcache.cache.format.quantize import dequantize
    from featcache.cache.read.reader import TokenCache
    from featcache.cache.write.writer import CacheWriter
