"""An open audio file of which many segments are read, as of a recording in windows."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from featcache.audio.opening import opened

OPEN_FILES = 8  # at once
_BLOCK = 1 << 24  # samples of all channels decoded at once: 64 MB
# These are decoded from their beginning on, always in the same blocks. The samples of MP3 depend, in their
# last bit, on where decoding began and on how much was asked for at once, and a seek reads all that lies
# before; in Ogg a seek in a file that has been read lands, now and then, elsewhere (libsndfile 1.2.2).
_READ_ON = ("MP3", "OGG")
_STEP = 1 << 16  # frames
_KEPT = 8  # times a segment's length: what is kept behind it, for segments that overlap or come late


class OpenRecording:
    """An open file.

    Raises:
        AudioError: as ``opened``.
    """

    def __init__(self, path: Path, accept_truncated: bool = False) -> None:
        self._path, self._accept = path, accept_truncated
        self._open()

    def _open(self) -> None:
        self.file: soundfile.SoundFile = opened(self._path, self._accept)
        self._place = 0  # [frames] where the next read begins
        self._blocks: deque[Tensor] = deque()
        self._first = 0  # the number of the first block that is kept
        self._ended = False

    def close(self) -> None:
        self.file.close()

    def read(self, first: int, count: int) -> Tensor:
        """Mean over channels of ``count`` frames from ``first``, or of as many as there are: (L,) float32.

        The same frames give the same bits, whatever was read before.
        """
        if self.file.format in _READ_ON:
            return self._read_on(first, count)
        blocks: list[Tensor] = []
        if first != self._place:
            self._place = self.file.seek(first)
        here = self._place == first
        while here and count > 0 and self._place < self.file.frames:
            wanted = min(count, max(1, _BLOCK // self.file.channels))
            blocks.append(self._decode(wanted))
            count -= len(blocks[-1])
            if len(blocks[-1]) < wanted:
                break
        return blocks[0] if len(blocks) == 1 else torch.cat([torch.zeros(0), *blocks])

    def _read_on(self, first: int, count: int) -> Tensor:
        if first < self._first * _STEP:
            self.file.close()
            self._open()
        kept_from = max(0, first - _KEPT * count) // _STEP
        while not self._ended and (self._first + len(self._blocks)) * _STEP < first + count:
            block = self._decode(_STEP)
            self._blocks.append(block)
            while self._first < kept_from and self._blocks:
                self._blocks.popleft()
                self._first += 1
            self._ended = len(block) < _STEP
        skipped, start = divmod(first - self._first * _STEP, _STEP)
        wanted = islice(self._blocks, skipped, skipped + (start + count - 1) // _STEP + 1)
        return torch.cat([torch.zeros(0), *wanted])[start : start + count]

    def _decode(self, frames: int) -> Tensor:
        samples = self.file.read(frames, out=np.empty((frames, self.file.channels), dtype=np.float32))
        self._place += len(samples)
        mono = torch.from_numpy(samples[:, 0] if samples.shape[1] == 1 else samples)
        return mono if mono.ndim == 1 else mono.mean(dim=1)


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0  # threads that read it or wait for it
    recording: OpenRecording | None = None


class OpenRecordings:
    """Files that stay open while their segments are read, the last few of them; for many threads."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Path, _Entry] = OrderedDict()
        self._guard = threading.Lock()

    @contextmanager
    def use(self, path: Path, accept_truncated: bool) -> Iterator[OpenRecording]:
        """A recording, which nobody else reads meanwhile.

        Raises:
            AudioError: it cannot be opened.
        """
        with self._guard:
            entry = self._entries.setdefault(path, _Entry())
            self._entries.move_to_end(path)
            entry.users += 1
        try:
            with entry.lock:
                try:
                    if entry.recording is None:
                        entry.recording = OpenRecording(path, accept_truncated)
                    yield entry.recording
                except BaseException:  # whoever reads it next begins anew
                    if entry.recording:
                        entry.recording.close()
                    entry.recording = None
                    raise
        finally:
            with self._guard:
                entry.users -= 1
            self._shrink(OPEN_FILES)

    def close(self) -> None:
        """Close what nobody reads."""
        self._shrink(0)

    def _shrink(self, most: int) -> None:
        with self._guard:
            idle = [path for path, entry in self._entries.items() if not entry.users]
            gone = [self._entries.pop(path) for path in idle[: max(0, len(self._entries) - most)]]
        for entry in gone:
            if entry.recording:
                entry.recording.close()
