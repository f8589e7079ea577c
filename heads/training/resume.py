"""Saving where a pass stands, so that a run that was cut off goes on from its last saved epoch.

A state file is what torch saves and, after it, the CRC-32C of that and of the file's name: a state with
one wrong bit, or of another run, would train on and give other scores under the same run digest.
"""

import io
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from crc32c import crc32c
from filelock import FileLock, Timeout

from featcache.cache.format.durable import PartialFile, partial_path, sync_directory
from featcache.errors import OutputError
from featcache.files import open_regular, reason
from featcache.heads.training.distributed import Ranks
from featcache.heads.training.trainer import Trainer

SHARE = 0.1  # of the time may go into saving; where states are large, not every epoch is saved
_END = b"featcache state, CRC-32C "  # then eight hex digits
_END_BYTES = len(_END) + 8


class Saver:
    """Writes the state of a trainer after epochs: whole and durable, or not at all."""

    def __init__(self, path: Path, trainer: Trainer) -> None:
        self.path, self.trainer = path, trainer
        self._next = time.perf_counter()

    def save(self) -> None:
        """Save now, unless saving would take more than its share of the time.

        Raises:
            OSError: it cannot be written; the state that was saved before stays.
        """
        began = time.perf_counter()
        if began < self._next:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = PartialFile(self.path)
        try:
            content = io.BytesIO()
            torch.save(self.trainer.state(), content)
            file.write(content.getbuffer())
            file.write(_END + _checksum(self.path, content.getbuffer()))
            file.finish()
            os.replace(partial_path(self.path), self.path)
        except BaseException:
            file.discard()
            raise
        sync_directory(self.path.parent)
        ended = time.perf_counter()
        self._next = ended + (ended - began) / SHARE


def restore(trainer: Trainer, path: Path, ranks: Ranks) -> None:
    """Set a trainer to its saved state, if there is one; all ranks to the same epoch, or none."""
    state = _load(path, trainer.device)
    epochs = ranks.gather(state["epoch"] if state else 0)
    if state and len(set(epochs)) == 1:
        trainer.restore(state)


def forget(state: Path) -> None:
    """Remove what was saved under this name, by any rank."""
    for path in state.parent.glob(f"{state.name}.*"):
        path.unlink(missing_ok=True)


def rank_file(state: Path, ranks: Ranks) -> Path:
    """The file of this rank."""
    return state.with_name(f"{state.name}.{ranks.rank}-of-{ranks.size}.pt")


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep equal runs from sharing one state: the first holds ``path`` until it ends, however it ends.

    Raises:
        OutputError: another process holds it.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"another process runs the same into {path.parent.parent}; wait for it to end, then run the same "
            "command again: it finds what is done"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # still held: whoever waits for it sees that it is gone
        lock.release()


def _load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """A saved state; None where there is none, or any doubt about it (then training starts over)."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read()
        why = _doubt(path, content)
        if why is None:
            end = io.BytesIO(content[:-_END_BYTES])
            state: dict[str, Any] = torch.load(end, map_location=device, weights_only=True)
            return state
    except FileNotFoundError:
        return None
    except OSError as error:
        why = f"cannot be read ({reason(error)})"
    except Exception as error:  # torch raises many kinds
        why = f"is of another version ({type(error).__name__})"
    logging.getLogger("featcache").warning("the saved state %s %s: training starts over", path, why)
    return None


def _checksum(path: Path, content: memoryview) -> bytes:
    return f"{crc32c(content, crc32c(path.name.encode())):08x}".encode()


def _doubt(path: Path, content: bytes) -> str | None:
    """Why the content of a state file is not believed."""
    if not content[-_END_BYTES:].startswith(_END):
        return "is cut short, or of another version"
    checksum = _checksum(path, memoryview(content)[:-_END_BYTES])
    return None if content.endswith(checksum) else "is damaged, or of another run (its checksum is wrong)"
