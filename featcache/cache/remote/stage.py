"""What a probe needs of a cache that lies far away, brought to a near disk first."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from featcache.cache.remote.pull import Layers, pull
from featcache.cache.remote.store import is_url
from featcache.cache.remote.transferred import Transferred


def staged_path(address: str | Path, folder: str | Path, layers: Layers = None) -> Path:
    """Where a cache, or some layers of it, is staged: its name, and a digest of where it comes from.

    >>> str(staged_path("s3://bucket/eat.zarr", "/ssd")).rsplit("-", 1)[0]
    '/ssd/eat'
    """
    where = str(address).rstrip("/") if is_url(address) else str(Path(address).resolve())
    name = Path(where.rsplit("/", 1)[-1])
    part = f"{where}\n{layers if layers is None or layers == 'last' else sorted(layers)}"
    digest = hashlib.blake2b(part.encode(), digest_size=4).hexdigest()
    return Path(folder) / f"{name.stem}-{digest}{name.suffix}"


def stage(
    address: str | Path,
    folder: str | Path,
    *,
    ids: Iterable[str] | None = None,
    layers: Layers = None,
    progress: bool = False,
) -> tuple[Path, Transferred]:
    """Bring a cache near, or what is missing of it there.

    Args:
        folder: a local disk; what is brought stays there for the next time

    Raises:
        As `pull`.
    """
    path = staged_path(address, folder, layers)
    return path, pull(address, path, ids=ids, layers=layers, progress=progress)
