"""One writer at a time, or several that share the work: a lock that a crash cannot leave behind."""

import errno
import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from featcache.errors import CacheError
from featcache.files import open_own, open_regular, quoted, read_bytes

LOCK = "lock"
_LONGEST = 4096  # [bytes] of its text
_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_PATIENCE = 0.2  # [s] whoever only looks for a writer holds the lock for a moment


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
            self._write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))

    def release(self) -> None:
        """Let the next writer in; more than once, or in a forked child, does nothing."""
        if self._lock.is_locked:
            if isinstance(self._lock, FileLock):
                with suppress(OSError):  # the cache may have been removed
                    self._write("")
            self._lock.release()

    def _write(self, text: str) -> None:
        with os.fdopen(open_own(self._path, os.O_WRONLY | os.O_TRUNC), "w") as file:
            file.write(text)

    def _acquired(self) -> BaseFileLock:
        if self._path.exists() or self._path.is_symlink():
            os.close(open_own(self._path, os.O_RDWR))  # a link, pipe or device: never our lock
        try:
            lock: BaseFileLock = FileLock(
                self._path, timeout=_PATIENCE, thread_local=False, fallback_to_soft=False
            )
            lock.acquire()
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            if not _text(self._path).strip():
                self._path.unlink()  # left by writers that had flock: empty, so nobody's
            lock = SoftFileLock(self._path, timeout=0, thread_local=False)
            lock.acquire()
        return lock

    def _owner(self) -> str:
        return _owner(_text(self._path))


class SharedLock:
    """The right of one of several writers; it keeps out those that must be alone.

    They need no lock among themselves, so where the file system has none they go on without.

    Raises:
        CacheError: a process that must be alone writes to the cache.
    """

    def __init__(self, cache: Path) -> None:
        self._path, self._pid = cache / LOCK, os.getpid()
        self._descriptor = open_own(self._path, os.O_RDWR | os.O_CREAT)
        try:
            if not _locked(self._descriptor, fcntl.LOCK_SH):
                raise CacheError(
                    f"the token cache {cache} is being written by {_owner(_text(self._path))}, which is not "
                    "one of several; wait for it to end or stop it, then run the same command again"
                )
        except BaseException:
            os.close(self._descriptor)
            raise
        _write_owner(self._descriptor)

    def release(self) -> None:
        """Let go; more than once, or in a forked child, does nothing."""
        if self._descriptor < 0 or os.getpid() != self._pid:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with suppress(OSError):  # the last one out leaves the file empty
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    """Whether the lock was got; also where there are none."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_FLOCK:
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        else:
            return True


def _write_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)


def writer_of(cache: Path) -> str | None:
    """Who writes to a cache now; None where nobody does.

    The lock is only tried where its file names somebody, so that looking never keeps a writer out.
    """
    text = _text(cache / LOCK)
    if not text.strip():
        return None
    try:
        descriptor = open_regular(cache / LOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or a file system without flock, where the text itself is the lock
        return _owner(text)
    finally:
        os.close(descriptor)
    return None


def _text(path: Path) -> str:
    try:
        return read_bytes(path, _LONGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        pid, host = owner["pid"], owner["host"]
    except (ValueError, KeyError, TypeError):  # filelock's own lines, or half written at this moment
        pid, host, *_ = [*text.split(), "?", "?"]
    return quoted(f"process {pid} on {host}")
