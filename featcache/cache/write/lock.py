"""One writer at a time: a lock that a crash cannot leave behind."""

import fcntl
import json
import os
import socket
import weakref
from pathlib import Path
from typing import Any

from featcache.errors import CacheError

LOCK = "lock"

_held: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


class WriterLock:
    """The right to write to a cache, held by an ``flock`` on its ``lock`` file until released.

    The kernel frees an flock when its process ends, however it ends, so there is no stale lock
    to judge; the file's text (pid, host, start) only names the owner in the message. Where the
    file system has no flock, that text decides, and a dead process of this host counts for nothing.

    Raises:
        CacheError: another process writes to the cache.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._descriptor = os.open(cache / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._acquire()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps(_this_process()).encode(), 0)
        except BaseException:
            os.close(self._descriptor)
            raise
        _held.add(self)

    def release(self) -> None:
        """Let the next writer in. The empty file stays: removing it would race with who opens it."""
        if self in _held:
            _held.discard(self)
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refused(self._owner()) from None
        except OSError:  # no flock on this file system
            owner = self._owner()
            if owner and _may_be_alive(owner):
                raise self._refused(owner) from None

    def _owner(self) -> dict[str, Any]:
        try:
            owner: dict[str, Any] = json.loads(os.pread(self._descriptor, 4096, 0))
        except ValueError:  # empty, or half written by its owner at this moment
            return {}
        return owner

    def _refused(self, owner: dict[str, Any]) -> CacheError:
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}"
        return CacheError(
            f"the token cache {self._cache} is being written by {who}; wait for it to end or stop it, "
            f"then run the same command again (if it is surely gone, remove {self._cache / LOCK})"
        )


def _this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "start": _start_ticks(os.getpid())}


def _start_ticks(pid: int) -> int | None:
    """When a process of this host started [clock ticks after boot]; a reused pid has another value."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def _may_be_alive(owner: dict[str, Any]) -> bool:
    if owner.get("host") != socket.gethostname():
        return True
    start = _start_ticks(owner["pid"])
    return start is not None and start == owner.get("start")


def _close_in_child() -> None:
    """A forked worker must not keep the lock alive when its parent is killed."""
    for lock in list(_held):
        os.close(lock._descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
