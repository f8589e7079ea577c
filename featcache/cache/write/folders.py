"""The folders that a cache writes to: real ones, so that nothing is written outside it."""

import stat
from pathlib import Path

from featcache.cache.format.layout import CacheLayout
from featcache.cache.format.ledger import LEDGER
from featcache.cache.write.plan import PLAN
from featcache.errors import CacheError


def check_folders(cache: Path, layout: CacheLayout) -> None:
    """See that no folder below ``cache`` is a link to somewhere else. The cache itself may be reached by one.

    Raises:
        CacheError: one is a symbolic link, or a file.
    """
    for name in folders(layout):
        try:
            mode = (cache / name).lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(mode):
            raise CacheError(
                f"{cache / name} is not a folder but a link or a file, and a cache writes to its own folders "
                "alone; remove it, or copy the cache without links"
            )


def folders(layout: CacheLayout) -> list[str]:
    """The folders of a cache, outer ones first: ``ids``, ``tokens``, ``tokens/12``, …"""
    arrays = [spec.name for spec in layout.all_arrays()]
    groups = dict.fromkeys(name.split("/")[0] for name in arrays if "/" in name)
    return ["ids", LEDGER, PLAN, *groups, *arrays]
