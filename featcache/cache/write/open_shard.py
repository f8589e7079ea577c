"""A shard from its first clip to its place in the ledger."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from featcache.cache.format.channels import Moments
from featcache.cache.format.codecs import Bytes, codec_named
from featcache.cache.format.durable import PartialFile, partial_path, write_partial, writer_name
from featcache.cache.format.layout import ArraySpec, CacheLayout
from featcache.cache.format.ledger import Entry, Finished
from featcache.cache.format.shard_index import encode_ids, encode_index, ids_file
from featcache.cache.write.clip_buffer import ClipBuffer
from featcache.cache.write.commit import finish, publish


class OpenShard:
    """The files of one shard while it grows.

    Tokens go to disk as they come, so that the disk works while the next clips are made and
    memory holds none of them; the small arrays wait for the end.

    Attributes:
        number: of the shard
        ids: of its clips so far
        keys: of its clips so far
    """

    def __init__(self, path: Path, layout: CacheLayout, number: int) -> None:
        self._path, self._layout, self.number = path, layout, number
        self.ids: list[str] = []
        self.keys: list[bytes] = []
        self._writer = writer_name()
        self._moments = {layer: Moments(layout.dim) for layer in layout.layers if layout.channels}
        self._tokens: dict[str, _TokenFile] = {}
        self._columns: dict[str, Bytes] = {}
        self._written: list[str] = []
        self._published = False  # its files are the shard's, whatever happens to this process
        try:
            for spec in layout.arrays():
                if spec.sharded:
                    self._tokens[spec.name] = _TokenFile(path / spec.chunk_file(number), spec, self._writer)
                else:  # a plain chunk is always whole
                    self._columns[spec.name] = np.zeros((layout.shard_rows, spec.row_bytes), dtype=np.uint8)
        except BaseException:
            self.discard()
            raise

    def append(self, clip: ClipBuffer) -> None:
        """Write the clip's tokens and keep the rest."""
        for name, file in self._tokens.items():
            file.append(clip.rows[name])
        for name, column in self._columns.items():
            column[len(self.ids)] = clip.rows[name]
        for layer, moments in self._moments.items():
            moments.add(clip.valid, *clip.spread(layer))
        self.ids.append(clip.id)
        self.keys.append(clip.key)

    def finish(self, finished: Finished, failed: dict[str, dict[str, str]]) -> bool:
        """Make the shard part of the cache; durable on return.

        Until the last step the ledger does not know the shard, so a crash at any instant leaves files
        that nobody counts, or a shard that anyone can finish.

        Args:
            failed: clips that were to be in the shard, as in `Entry`

        Returns:
            False where another writer was first; its shard counts.
        """
        files = self._finish_files() if self.ids else {}
        if not files:
            self.discard()
        entry = Entry(shard=self.number, clips=len(self.ids), files=files, failed=failed)
        self._published = publish(self._path, entry, self._writer)
        finish(self._path, self._layout, self.number, finished)
        self._published &= not any(partial_path(self._path / name, self._writer).exists() for name in files)
        self.discard()
        return self._published

    def discard(self) -> None:
        """Remove what was written, as far as that can be done: this frees what filled the disk."""
        if self._published:
            return
        for file in self._tokens.values():
            file.discard()
        for name in self._written:
            with suppress(OSError):  # the next writer removes what stays
                partial_path(self._path / name, self._writer).unlink(missing_ok=True)

    def _finish_files(self) -> dict[str, Any]:
        files: dict[str, Any] = {}
        for spec in self._layout.arrays():
            name = spec.chunk_file(self.number)
            if spec.sharded:
                files[name] = self._tokens[spec.name].finish(self._layout.shard_rows)
            else:
                files[name] = self._write(name, self._columns[spec.name])
        for layer, moments in self._moments.items():
            name = self._layout.statistics(layer).chunk_file(self.number)
            files[name] = self._write(name, moments.table().reshape(-1).view(np.uint8))
        name = ids_file(self.number)
        return {**files, name: self._write(name, encode_ids(self.ids))}

    def _write(self, name: str, data: Any) -> dict[str, Any]:
        self._written.append(name)
        return write_partial(self._path / name, data, writer=self._writer)


class _TokenFile:
    """One layer's tokens: the inner chunks in order, then the index with its checksum."""

    def __init__(self, path: Path, spec: ArraySpec, writer: str) -> None:
        self._file = PartialFile(path, writer)
        self._lengths: list[int] = []
        codec = codec_named(spec.codec)
        self._compressor = codec.build(spec.item_bytes) if codec else None

    def append(self, row: Bytes) -> None:
        chunk = row if self._compressor is None else self._compressor.encode(row)
        self._file.write(chunk)
        self._lengths.append(len(chunk))

    def finish(self, shard_rows: int) -> dict[str, Any]:
        self._file.write(encode_index(self._lengths, shard_rows))
        return self._file.finish()

    def discard(self) -> None:
        self._file.discard()
