"""What a clip is: a digest of its audio file's bytes and its segment, never its name.

Hashing every file at each run would read the whole data set, so a file's digest is remembered
with its size, inode and times of modification and change, in a small database of the user
(``FEATCACHE_HOME``, else ``~/.cache/featcache``). The change time is the file system's own: no tool sets
it back, as ``cp -p``, ``rsync -t`` and ``touch`` do with the other. Losing the database costs time alone.
"""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from tqdm import tqdm

from featcache.embedded import is_embedded, on_disk
from featcache.errors import FeatcacheError
from featcache.home import home
from featcache.manifest.clip import Clip
from featcache.manifest.files import file_problem
from featcache.manifest.variant import keys_in

# A file that changed this recently may change again without its time stamps moving on.
SETTLED = 2.0  # [s]
_BLOCK = 1 << 20
_TOGETHER = 16  # files that a thread is handed at once: small ones are read faster than handed over


def clip_key(file_digest: bytes, start: float, end: float | None) -> bytes:
    """16 bytes that name a clip: its file's content and its segment, to the microsecond.

    >>> clip_key(b"x" * 16, 0.0, None) == clip_key(b"x" * 16, 0.0, 5.0)
    False
    """
    stop = "end" if end is None else f"{end:.6f}"
    return hashlib.blake2b(file_digest + f"|{start:.6f}|{stop}".encode(), digest_size=16).digest()


def clip_keys(clips: Iterable[Clip], *, rehash: bool = False, progress: bool = False) -> list[bytes | None]:
    """The key of each clip; None where its file does not exist (or cannot be read).

    Args:
        rehash: read every file, whatever is remembered of it
    """
    clips = list(clips)
    digests = file_digests(dict.fromkeys(clip.path for clip in clips), rehash=rehash, progress=progress)
    return [
        None if digest is None else _with_sources(clip_key(digest, clip.start, clip.end), clip)
        for clip, digest in ((clip, digests[clip.path]) for clip in clips)
    ]


def _with_sources(key: bytes, clip: Clip) -> bytes:
    """A variant's key; that of its clip where nothing lies over it, for then it sounds the same."""
    sources = keys_in(clip.variant.sources) if clip.variant else b""
    return hashlib.blake2b(key + sources, digest_size=16).digest() if sources else key


def file_digests(
    paths: Iterable[Path], *, rehash: bool = False, progress: bool = False
) -> dict[Path, bytes | None]:
    """Digest of each file's bytes; a remembered one where size, inode and both times agree.

    Args:
        rehash: forget what is remembered of these files first
    """
    stats = {path: _stat(path) for path in paths}
    with closing(_database()) as memory:
        if rehash:
            _forget(memory, stats)
        found = {
            path: None if rehash else _recall(memory, path, stat) for path, stat in stats.items() if stat
        }
        new = [path for path, digest in found.items() if digest is None]
        now = time.time()
        for path, digest in _hash_all(new, progress):
            found[path] = digest
            stat = stats[path]
            if digest is not None and stat and _settled(stat, now) and _same(stat, _stat(path)):
                _remember(memory, path, stat, digest)
        with suppress(sqlite3.Error):
            memory.commit()
    return {path: found.get(path) for path in stats}


def _hash_all(paths: list[Path], progress: bool) -> Iterator[tuple[Path, bytes | None]]:
    # hashlib lets go of the interpreter lock, so threads hash in parallel.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        bar = tqdm(
            total=len(paths),
            desc="audio digests",
            unit="file",
            disable=None if progress else True,
            leave=False,
        )
        with bar:
            groups = [paths[start : start + _TOGETHER] for start in range(0, len(paths), _TOGETHER)]
            for group, digests in zip(groups, pool.map(_hash_group, groups), strict=True):
                bar.update(len(group))
                yield from zip(group, digests, strict=True)


def _hash_group(paths: list[Path]) -> list[bytes | None]:
    return [_hash(path) for path in paths]


def _hash(path: Path) -> bytes | None:
    state = hashlib.blake2b(digest_size=16)
    try:
        with on_disk(path) as own, own.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                state.update(block)
    except (OSError, FeatcacheError):
        return None
    return state.digest()


def _stat(path: Path) -> os.stat_result | None:
    if file_problem(path):
        return None
    try:
        return (path.parent if is_embedded(path) else path).stat()
    except OSError:  # it went away since
        return None


def _database() -> sqlite3.Connection:
    """The database of remembered digests, or one in memory where the home cannot be written."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        return _open_database(str(home() / "digests.sqlite"))
    except (OSError, sqlite3.Error):
        return _open_database(":memory:")


def _open_database(name: str) -> sqlite3.Connection:
    memory = sqlite3.connect(name, timeout=30)
    # The table "digests" of earlier versions knew neither inode nor change time: it is not believed.
    memory.execute("DROP TABLE IF EXISTS digests")
    memory.execute(
        "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INT, inode TEXT, "
        "mtime_ns INT, ctime_ns INT, digest BLOB) WITHOUT ROWID"
    )
    return memory


def _facts(stat: os.stat_result) -> tuple[int, str, int, int]:
    """What must agree for a digest to be believed. Inodes may exceed SQLite's integers."""
    return stat.st_size, str(stat.st_ino), stat.st_mtime_ns, stat.st_ctime_ns


def _settled(stat: os.stat_result, now: float) -> bool:
    return now - max(stat.st_mtime, stat.st_ctime) > SETTLED


def _same(before: os.stat_result, after: os.stat_result | None) -> bool:
    """Whether a file stayed itself while it was hashed."""
    return after is not None and _facts(before) == _facts(after)


def _forget(memory: sqlite3.Connection, paths: Iterable[Path]) -> None:
    with suppress(sqlite3.Error):
        memory.executemany("DELETE FROM files WHERE path = ?", [(os.path.abspath(path),) for path in paths])


def _recall(memory: sqlite3.Connection, path: Path, stat: os.stat_result) -> bytes | None:
    query = (
        "SELECT digest FROM files WHERE path = ? AND size = ? AND inode = ? AND mtime_ns = ? AND ctime_ns = ?"
    )
    row = memory.execute(query, (os.path.abspath(path), *_facts(stat))).fetchone()
    return bytes(row[0]) if row else None


def _remember(memory: sqlite3.Connection, path: Path, stat: os.stat_result, digest: bytes) -> None:
    row = (os.path.abspath(path), *_facts(stat), digest)
    with suppress(sqlite3.Error):  # a locked or full disk costs a second hashing, no more
        memory.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
