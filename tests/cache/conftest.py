"""Small caches of seeded tokens."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.cache import CacheLayout, CacheWriter, TokenCache
from featcache.cache.format.durable import file_crc32c
from featcache.cache.format.ledger import pieces, read_ledger, rewrite_ledger


class Clips:
    """Clips by number: their keys, seeded tokens, and how they get into a cache."""

    def layout(self, **changes: Any) -> CacheLayout:
        """Two layers of 6 tokens of width 8, 4 clips a shard."""
        settings: dict[str, Any] = {
            "fingerprint": {"encoder": "fake", "weights": {"digest": "a1"}, "layers": (3, 12)},
            "layers": (3, 12),
            "num_tokens": 6,
            "dim": 8,
            "grid": (2, 3),
            "has_cls": True,
            "shard_clips": 4,
        }
        return CacheLayout(**settings | changes)

    def key(self, index: int) -> bytes:
        return index.to_bytes(16, "big")

    def valid(self, index: int) -> int:
        """Every third clip has two tokens of padding."""
        return 4 if index % 3 == 0 else 6

    def tokens(self, index: int, layer: int = 12) -> Tensor:
        """(6, 8), of which `valid` are not zero."""
        tokens = torch.randn(6, 8, generator=torch.Generator().manual_seed(100 * layer + index))
        tokens[self.valid(index) :] = 0
        return tokens

    def add(self, writer: CacheWriter, indices: Iterable[int]) -> None:
        """Add those that the cache lacks, as extract does."""
        layout = writer.layout
        for index in indices:
            if self.key(index) not in writer.done_keys:
                tokens = {layer: self.tokens(index, layer) for layer in layout.layers}
                cls = {layer: values[0] for layer, values in tokens.items()} if layout.has_cls else None
                cut = {layer: values[: self.valid(index)] for layer, values in tokens.items()}
                writer.add(f"clip{index}", self.key(index), cut, cls, self.valid(index))

    def write(self, path: Path, indices: Iterable[int], **changes: Any) -> None:
        with CacheWriter.create_or_open(path, self.layout(**changes)) as writer:
            self.add(writer, indices)

    def relist(self, path: Path) -> None:
        """Make the ledger agree with the files that are there, as that of another writer would."""
        entries = list(read_ledger(path))
        for entry in entries:
            for name in entry.files:
                length, checksum = file_crc32c(path / name)
                entry.files[name] = {"bytes": length, "crc32c": checksum}
        rewrite_ledger(path, entries)

    def ledger(self, path: Path) -> Path:
        """The one file of the ledger of a cache that is not being written."""
        (name,) = pieces(path)
        return path / name

    def bytes_of(self, path: Path) -> dict[str, bytes]:
        """Every file of a cache."""
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def clips() -> Clips:
    return Clips()


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    """Caches that `make_cache` has written, by what was asked for, and their folder."""
    return tmp_path_factory.mktemp("written"), {}


@pytest.fixture
def make_cache(
    tmp_path: Path, clips: Clips, written: tuple[Path, dict[str, Path]]
) -> Callable[..., TokenCache]:
    """A function that makes a cache of ``count`` clips and opens it: a copy of one that was written once."""
    folder, known = written

    def make(count: int = 10, *, name: str = "a.zarr", reader: str = "map", **changes: Any) -> TokenCache:
        asked = repr((count, sorted(changes.items())))
        if asked not in known:
            clips.write(folder / f"{len(known)}.zarr", range(count), **changes)
            known[asked] = folder / f"{len(known)}.zarr"
        shutil.copytree(known[asked], tmp_path / name)
        return TokenCache.open(tmp_path / name, reader)

    return make


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
