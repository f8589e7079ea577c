"""The token cache: written once, mapped at memory speed, checked, converted and reused."""

from featcache.cache.dtypes import dequantise
from featcache.cache.layout import CacheLayout
from featcache.cache.reader import TokenCache
from featcache.cache.writer import CacheWriter

__all__ = ["CacheLayout", "CacheWriter", "TokenCache", "dequantise"]
