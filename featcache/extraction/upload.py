"""Extraction into a far place: shards are made in a local folder, and copied while others are made."""

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from featcache.cache.format.layout import CLIP_KEY, KEY_BYTES, CacheLayout
from featcache.cache.format.ledger import Entry, read_ledger
from featcache.cache.format.metadata import read_attributes
from featcache.cache.remote.pull import prepare
from featcache.cache.remote.push import push
from featcache.cache.remote.stage import staged_path
from featcache.cache.remote.store import FarStore
from featcache.cache.remove import remove_cache
from featcache.cache.write.lock import writer_of
from featcache.errors import CacheError, FeatcacheError

_log = logging.getLogger(__name__)
PAUSE = 2.0  # [s] between two looks for finished shards


@dataclass
class Upload:
    """One run's work for a cache at an address.

    Attributes:
        path: the local folder where its shards are made
        shards: numbers of those that are at the address
        keys: of the clips that are stored there
        failed: clips that could not be decoded there, as in `Entry`
        turns: a lock among writers that share the local folder; None where there is one writer
    """

    address: str
    path: Path
    shards: set[int] = field(default_factory=set)
    keys: set[bytes] = field(default_factory=set)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    turns: FileLock | None = None

    @classmethod
    def to(cls, address: str, scratch: str | Path, *, alone: bool = True) -> "Upload":
        """Look at what is there, and make a local cache of the same plan and scales that holds none of it.

        Args:
            alone: no other process fills the local folder meanwhile
        """
        own, store = cls(address, staged_path(address, scratch)), FarStore(address)
        if not alone:
            own.path.parent.mkdir(parents=True, exist_ok=True)
            own.turns = FileLock(own.path.with_name(f".{own.path.name}.upload"))
        with own._turn(), TemporaryDirectory(prefix="featcache-") as name:
            head = Path(name)
            if store.head(head):
                layout = CacheLayout.from_attributes(read_attributes(head), address)
                here = {entry.shard for entry in read_ledger(own.path)} if own.path.exists() else set()
                for entry in read_ledger(head):
                    own.failed.update(entry.failed)
                    if entry.shard not in here:
                        own.shards.add(entry.shard)
                        own.keys.update(_keys(store, entry))
                prepare(own.path, store, head, layout)
        return own

    @contextmanager
    def running(self) -> Iterator[None]:
        """Copy finished shards as they come; at the end the rest, also of a run that is stopped.

        Raises:
            CacheError: the place cannot be written to; what was made stays in the local folder.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._copy_now_and_then, args=(over,), name="upload", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with self._turn():
                self._push(progress=True)

    def clear(self) -> None:
        """Remove the local folder, whose shards have all arrived; of several writers the last one does."""
        with self._turn():
            if self.turns is None:
                remove_cache(self.path)
            elif (self.path / "zarr.json").exists() and writer_of(self.path) is None:
                self._push()  # also what others have finished since, and come to later
                with suppress(CacheError):  # one that came just now
                    remove_cache(self.path)

    def _turn(self) -> AbstractContextManager[object]:
        return self.turns or nullcontext()

    def _push(self, *, progress: bool = False) -> None:
        if (self.path / "zarr.json").exists():  # else another writer was the last
            push(self.path, self.address, progress=progress)

    def _copy_now_and_then(self, over: threading.Event) -> None:
        pushed = 0
        while not over.wait(PAUSE):
            try:
                count = len(list(read_ledger(self.path))) if (self.path / "zarr.json").exists() else 0
                if count > pushed:  # else the place need not be asked what it holds
                    with self._turn():
                        self._push()
                    pushed = count
            except FeatcacheError as error:  # the last push says it, if it is still so
                _log.info("%s", error)


def _keys(store: FarStore, entry: Entry) -> list[bytes]:
    content = store.read(CLIP_KEY.chunk_file(entry.shard)) if entry.clips else b""
    return [
        bytes(content or b"")[start : start + KEY_BYTES]
        for start in range(0, entry.clips * KEY_BYTES, KEY_BYTES)
    ]
