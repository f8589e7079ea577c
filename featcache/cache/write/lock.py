"""One writer at a time: a lock that a crash cannot leave behind."""

import errno
import json
import os
import socket
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from featcache.errors import CacheError

LOCK = "lock"
_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


class WriterLock:
    """The right to write to a cache, held by an ``flock`` on its ``lock`` file until released.

    The kernel frees an flock when its process ends, however it ends, so there is no stale lock
    to judge; the file's text (pid, host) only names the owner in the message. Where the file system
    has no flock, the file's existence and text decide, and a dead process of this host counts for nothing.

    Raises:
        CacheError: another process writes to the cache.
    """

    def __init__(self, cache: Path) -> None:
        self._path = cache / LOCK
        try:
            self._lock = self._acquired()
        except Timeout:
            raise CacheError(
                f"the token cache {cache} is being written by {self._owner()}; wait for it to end or stop "
                f"it, then run the same command again (if it is surely gone, remove {self._path})"
            ) from None
        if isinstance(self._lock, FileLock):
            self._path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))

    def release(self) -> None:
        """Let the next writer in; more than once, or in a forked child, does nothing."""
        if self._lock.is_locked:
            if isinstance(self._lock, FileLock) and self._path.exists():  # the cache may have been removed
                self._path.write_text("")
            self._lock.release()

    def _acquired(self) -> BaseFileLock:
        try:
            lock: BaseFileLock = FileLock(self._path, timeout=0, thread_local=False, fallback_to_soft=False)
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            if not self._path.read_text().strip():
                self._path.unlink()  # left by writers that had flock: empty, so nobody's
            lock = SoftFileLock(self._path, timeout=0, thread_local=False)
            lock.acquire()
        return lock

    def _owner(self) -> str:
        text = self._path.read_text()
        try:
            owner = json.loads(text)
            pid, host = owner["pid"], owner["host"]
        except (ValueError, KeyError, TypeError):  # filelock's own lines, or half written at this moment
            pid, host, *_ = [*text.split(), "?", "?"]
        return f"process {pid} on {host}"
