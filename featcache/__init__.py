"""featcache: run a frozen audio encoder once, keep every patch token, probe it many times.

Names are imported when first used, so that ``import featcache`` does not wait for torch.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from featcache._version import __version__
from featcache.lazy import lazy

__all__ = [
    "FeatcacheError",
    "TokenCache",
    "__version__",
    "build_encoder",
    "build_head",
    "compare",
    "extract",
    "load_manifest",
    "probe",
    "read_manifest",
    "read_results",
]

_ROOT = Path(__file__).resolve().parents[1]
# Python found the checkout itself, for it runs there: heads and cli are beside this folder, not in it.
if not Path(__file__).with_name("heads").exists() and (_ROOT / "heads" / "registry.py").exists():
    __path__.append(str(_ROOT))

# What stands here is the public face of all three packages; ``probe`` and the like are stage two's.
_HOMES = {
    "FeatcacheError": "featcache.errors",
    "TokenCache": "featcache.cache.read.reader",
    "build_encoder": "featcache.encoders",
    "build_head": "featcache.heads.registry",
    "compare": "featcache.heads.report.compare",
    "extract": "featcache.extraction.extract",
    "load_manifest": "featcache.manifest",
    "probe": "featcache.heads.probing.probe",
    "read_manifest": "featcache.manifest",
    "read_results": "featcache.heads.report.results",
}
__getattr__, _ = lazy(__name__, _HOMES)

if TYPE_CHECKING:
    from featcache.cache.read.reader import TokenCache
    from featcache.encoders import build_encoder
    from featcache.errors import FeatcacheError
    from featcache.extraction.extract import extract
    from featcache.heads.probing.probe import probe
    from featcache.heads.registry import build_head
    from featcache.heads.report.compare import compare
    from featcache.heads.report.results import read_results
    from featcache.manifest import load_manifest, read_manifest


def __dir__() -> list[str]:
    return [*__all__, "cache", "encoders", "heads", "manifest"]
