"""The user's folder for what featcache may lose, and whether what lies there can be trusted to run."""

import os
import stat
from pathlib import Path


def home() -> Path:
    """Where featcache keeps what it may lose: ``FEATCACHE_HOME``, else the user's cache folder."""
    if told := os.environ.get("FEATCACHE_HOME"):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featcache"


def private(path: Path) -> bool:
    """Whether nobody but the user (or root) can have put this file or folder here, or can replace it.

    It must be no link, belong to the user or root and be writable by nobody else; nobody else may be able to
    rename a folder above it.
    """
    try:
        return _own(path, others=0o022) and all(_own(above, others=0o002) for above in _above(path))
    except OSError:
        return False


def _own(path: Path, others: int) -> bool:
    status = path.lstat()
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and others == 0o002
    mine = status.st_uid in (os.geteuid(), 0) and not stat.S_ISLNK(status.st_mode)
    return mine and (bool(sticky) or not status.st_mode & others)


def _above(path: Path) -> list[Path]:
    return list((path.parent.resolve() / path.name).parents)
