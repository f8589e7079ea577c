"""A shard from its first clip to its line in the ledger: content, names, shapes, ledger."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from featcache.cache.format.codecs import Bytes, codec_named
from featcache.cache.format.durable import PartialFile, partial_path, sync_directory, write_partial
from featcache.cache.format.layout import ArraySpec, CacheLayout
from featcache.cache.format.ledger import Entry, append_entry
from featcache.cache.format.metadata import write_metadata
from featcache.cache.format.shard_index import encode_ids, encode_index, ids_file
from featcache.cache.write.clip_buffer import ClipBuffer


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
        self._tokens: dict[str, _TokenFile] = {}
        self._columns: dict[str, Bytes] = {}
        self._written: list[str] = []
        try:
            for spec in layout.arrays():
                if spec.sharded:
                    self._tokens[spec.name] = _TokenFile(path / spec.chunk_file(number), spec)
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
        self.ids.append(clip.id)
        self.keys.append(clip.key)

    def finish(self, attributes: dict[str, Any], rows: int) -> None:
        """Make the shard part of the cache; durable on return.

        Until the last step the ledger does not know the shard, so a crash at any instant leaves files
        that nobody counts and that the next writer overwrites with the same bytes.

        Args:
            attributes: of the cache
            rows: of every array once this shard is there
        """
        files = self._finish_files()
        for name in files:
            partial_path(self._path / name).rename(self._path / name)
        for directory in sorted({(self._path / name).parent for name in files}):
            sync_directory(directory)
        # Not durable: shapes follow from the ledger and are written again on opening and closing.
        write_metadata(self._path, self._layout, attributes, rows, durable=False)
        append_entry(self._path, Entry(shard=self.number, clips=len(self.ids), files=files))

    def discard(self) -> None:
        """Remove what was written, as far as that can be done: this frees what filled the disk."""
        for file in self._tokens.values():
            file.discard()
        for name in self._written:
            with suppress(OSError):  # the next writer removes what stays
                partial_path(self._path / name).unlink(missing_ok=True)

    def _finish_files(self) -> dict[str, Any]:
        files: dict[str, Any] = {}
        for spec in self._layout.arrays():
            name = spec.chunk_file(self.number)
            if spec.sharded:
                files[name] = self._tokens[spec.name].finish(self._layout.shard_rows)
            else:
                files[name] = self._write(name, self._columns[spec.name])
        name = ids_file(self.number)
        return {**files, name: self._write(name, encode_ids(self.ids))}

    def _write(self, name: str, data: Any) -> dict[str, Any]:
        self._written.append(name)
        return write_partial(self._path / name, data)


class _TokenFile:
    """One layer's tokens: the inner chunks in order, then the index with its checksum."""

    def __init__(self, path: Path, spec: ArraySpec) -> None:
        self._file = PartialFile(path)
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
