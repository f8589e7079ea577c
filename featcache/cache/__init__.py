"""The token cache: written once, mapped at memory speed, checked, converted and reused.

Names are imported when first used: looking at a cache does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "CacheLayout": "featcache.cache.layout",
    "CacheWriter": "featcache.cache.writer",
    "TokenCache": "featcache.cache.reader",
    "dequantise": "featcache.cache.quantise",
}

__all__ = ["CacheLayout", "CacheWriter", "TokenCache", "dequantise"]

if TYPE_CHECKING:
    from featcache.cache.layout import CacheLayout
    from featcache.cache.quantise import dequantise
    from featcache.cache.reader import TokenCache
    from featcache.cache.writer import CacheWriter


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featcache.cache' has no attribute {name!r}")
