"""featcache: run a frozen audio encoder once, keep every patch token, probe it many times.

Names are imported when first used, so that ``import featcache`` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "extract": "featcache.extraction",
    "TokenCache": "featcache.cache",
    "read_manifest": "featcache.manifest",
    "build_encoder": "featcache.encoders",
    "FeatcacheError": "featcache.errors",
}

__all__ = ["FeatcacheError", "TokenCache", "__version__", "build_encoder", "extract", "read_manifest"]

if TYPE_CHECKING:
    from featcache.cache import TokenCache
    from featcache.encoders import build_encoder
    from featcache.errors import FeatcacheError
    from featcache.extraction import extract
    from featcache.manifest import read_manifest


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'featcache' has no attribute {name!r}")
