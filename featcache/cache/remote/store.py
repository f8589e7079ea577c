"""One place that fsspec reaches, a bucket or a folder, as names and files."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from featcache.cache.format.ledger import LEDGER, OLD_LEDGER
from featcache.cache.write.plan import PLAN
from featcache.errors import CacheError, InputError
from featcache.records import FAILED, OWN, RUNS

T = TypeVar("T")
_PLAIN = re.compile(r"\w[\w.]*").fullmatch  # whatever the place lists, it becomes a name here
READERS = 16  # small files at a time
TRIES = 6
FIRST_WAIT = 0.1  # [s] before the second try; doubled each time
LASTING = (FileNotFoundError, PermissionError, NotImplementedError, IsADirectoryError)
PACKAGES = {"s3": "featcache[s3]", "gs": "featcache[gs]", "az": "featcache[az]", "abfs": "featcache[az]"}
SMALL = ("zarr.json", *OWN, RUNS, FAILED, OLD_LEDGER)  # files of a cache that are no shard's


def is_url(place: str | Path) -> bool:
    """Whether a place is to be reached through fsspec.

    >>> is_url("s3://bucket/eat.zarr"), is_url("caches/eat.zarr")
    (True, False)
    """
    return "://" in str(place)


class FarStore:
    """The files below an address: ``s3://bucket/caches/eat.zarr``, or a path.

    Raises:
        InputError: there is no such kind of address, or the package that speaks it is not installed.
    """

    def __init__(self, address: str | Path) -> None:
        import fsspec

        self.address = str(address).rstrip("/")
        if self.address.startswith("hf-hub:"):
            self.address = "hf://datasets/" + self.address.removeprefix("hf-hub:")
        kind = self.address.split("://")[0] if is_url(self.address) else "file"
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.address)
        except ImportError as error:
            package = PACKAGES.get(kind, "")
            advice = f"pip install '{package}'" if package else str(error)
            raise InputError(f"{self.address} needs a package that is not installed: {advice}") from None
        except ValueError as error:
            raise InputError(f"{self.address} is no address that can be reached: {error}") from None
        self.kind = kind

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder; none where it is not there."""

        def listed() -> list[Any]:
            self._files.invalidate_cache()
            try:
                return list(self._files.ls(f"{self._root}/{folder}", detail=False))
            except FileNotFoundError:
                return []

        return sorted(str(name).rstrip("/").rsplit("/", 1)[-1] for name in self._again(folder, listed))

    def get(self, name: str, path: Path) -> None:
        """Write one file to a local path."""
        self._again(name, lambda: self._files.get_file(f"{self._root}/{name}", str(path)))

    def read(self, name: str) -> bytes | None:
        """The content of one file; None where it is not there."""

        def content() -> bytes | None:
            try:
                found: bytes = self._files.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                return None
            return found

        return self._again(name, content)

    def put(self, path: Path, name: str) -> None:
        """Store a local file under a name, and see that it has arrived whole."""
        whole, size = f"{self._root}/{name}", path.stat().st_size

        def store() -> None:
            self._files.makedirs(whole.rsplit("/", 1)[0], exist_ok=True)
            self._files.put_file(str(path), whole)
            self._files.invalidate_cache()
            arrived = self._files.info(whole)["size"]
            if arrived != size:
                raise OSError(f"{arrived} of {size} bytes arrived")

        self._again(name, store)

    def write(self, name: str, data: bytes) -> None:
        """Store a small file."""

        def store() -> None:
            self._files.makedirs(f"{self._root}/{name}".rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(f"{self._root}/{name}", data)

        self._again(name, store)

    def head(self, folder: Path) -> bool:
        """Bring what says what a cache holds, and none of its tokens, to a local folder.

        Returns:
            Whether there is a cache.
        """
        names = list(SMALL)
        for inner in (LEDGER, PLAN):
            (folder / inner).mkdir(parents=True, exist_ok=True)
            names += [f"{inner}/{name}" for name in self.names(inner) if _PLAIN(name)]
        with ThreadPoolExecutor(READERS, "head") as pool:  # a place has a file for each shard
            found = dict(zip(names, pool.map(self.read, names), strict=True))
        for name, data in found.items():
            if data is not None:
                (folder / name).write_bytes(data)
        return found["zarr.json"] is not None

    def _again(self, name: str, action: Callable[[], T]) -> T:
        """Try until it works, or it is clear that it will not."""
        for tried in range(TRIES):
            try:
                return action()
            except LASTING as error:
                raise self._refused(name, error) from error
            except Exception as error:  # each store has errors of its own
                if tried == TRIES - 1:
                    raise self._refused(name, error) from error
                time.sleep(FIRST_WAIT * 2**tried)
        raise AssertionError

    def _refused(self, name: str, error: Exception) -> CacheError:
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        return CacheError(
            f"{self.address}/{name}: {why}; what has arrived is kept: run the same command again to go on"
        )
