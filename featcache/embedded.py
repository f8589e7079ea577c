"""Audio inside other files: a row of parquet or a member of an archive has a path like that of a file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featcache import parquet, tarball

_SUFFIXES = (parquet.SUFFIX, *tarball.SUFFIXES)


def is_embedded(path: Path) -> bool:
    """Whether a path leads into a file."""
    folder = str(path).rpartition(os.sep)[0]  # as text: of millions of paths nearly all end here
    return folder.endswith(_SUFFIXES) and (parquet.is_embedded(path) or tarball.is_member(path))


@contextmanager
def on_disk(path: Path) -> Iterator[Path]:
    """The audio file itself, or a temporary one with the bytes of what is embedded."""
    if not is_embedded(path):
        yield path
        return
    read = parquet.embedded_bytes if parquet.is_embedded(path) else tarball.member_bytes
    with tempfile.NamedTemporaryFile(prefix="featcache-") as file:
        file.write(read(path))
        file.flush()
        yield Path(file.name)
