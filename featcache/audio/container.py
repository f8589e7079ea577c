"""Whether an audio file is all there: what its container says, held against the file itself.

libsndfile shortens a clip whose file was cut off (a full disk, a broken download) without a word.
FLAC and MP3 need nothing here: their decoders say less than their headers promise.
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

# Recorders that write into a pipe cannot know the length and leave one of these.
_UNKNOWN_32 = {0, *range(0x7FFFF000, 0x80000001), *range(0xFFFFFF00, 0x100000000)}
_MOST_CHUNKS = 10_000
_SMALL = 1 << 16  # [bytes] of a file that is read whole
_OGG_BUFFER = 1 << 17  # [bytes] more than the longest page, 65,307


class Examined(NamedTuple):
    """What a container says of its file.

    Attributes:
        size: of the file [bytes]
        missing: of the audio, in words; None if nothing is, or the format cannot say
        unclosed: where the length of a WAV's audio stands, if its recorder was stopped before it wrote one
    """

    size: int
    missing: str | None = None
    unclosed: int | None = None


def examine(path: Path) -> Examined:
    """Hold a file against what its container says.

    Told of: WAV (RF64 and RIFX too), AIFF, 8SVX, AU, W64, CAF, NIST and Ogg. Unknown lengths and
    anything behind the audio are fine.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        head = os.read(descriptor, _SMALL)
        if head[:4] == b"OggS":
            return Examined(facts.st_size, missing=_ogg_gap(path, facts.st_size, facts.st_mtime_ns))
        # Of millions of small files each is read once: threads that decode wait for each other at every call.
        file = io.BytesIO(head) if len(head) == facts.st_size else os.fdopen(descriptor, "rb", closefd=False)
        return _held_against(file, head, facts.st_size)
    finally:
        os.close(descriptor)


def _held_against(file: BinaryIO, head: bytes, size: int) -> Examined:
    find = next((find for magic, find in _FORMATS.items() if head.startswith(magic)), None)
    found = find(file, size) if find else None
    if found is None:
        return Examined(size, unclosed=_unclosed(file, size) if head[:4] == b"RIFF" else None)
    begin, wanted = found
    if begin + wanted <= size:
        return Examined(size)
    return Examined(
        size, f"its header promises {wanted:,} bytes of audio, {max(0, size - begin):,} are there"
    )


class Unclosed(io.FileIO):
    """A WAV file whose recorder was stopped before it wrote the length: read up to its end.

    libsndfile takes a length of 0 at its word; of 0xFFFFFFFF it knows that it stands for "unknown".
    Nobody need close it.
    """

    def __init__(self, path: Path, place: int) -> None:
        super().__init__(path)
        self._place = place  # of the four bytes of the length

    def readinto(self, buffer: Any) -> int:
        begin, count = self.tell(), super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for index in range(max(begin, self._place), min(begin + count, self._place + 4)):
            view[index - begin] = 0xFF
        return count

    def __del__(self) -> None:
        self.close()


def _unclosed(file: BinaryIO, size: int) -> int | None:
    """Where a WAV should say how much audio it has, if neither that nor the whole has a length."""
    file.seek(4)
    whole = int.from_bytes(file.read(4), "little")
    for name, begin, length in _chunks(file, size, 12, "little"):
        if name == b"data":
            none = length == 0 and begin < size and (whole <= begin or whole in _UNKNOWN_32)
            return begin - 4 if none else None
    return None


def _chunks(file: BinaryIO, size: int, begin: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content and its promised length of each chunk of an IFF-like file."""
    place = begin
    for _ in range(_MOST_CHUNKS):
        file.seek(min(place, size))
        header = file.read(8)
        if place >= size or len(header) < 8:
            return
        length = int.from_bytes(header[4:], order)  # type: ignore[arg-type]
        yield header[:4], place + 8, length
        place += 8 + length + length % 2


def _riff(file: BinaryIO, size: int) -> tuple[int, int] | None:
    file.seek(0)
    order = "big" if file.read(4) == b"RIFX" else "little"
    long = None  # ds64: the length of the data in 64 bits
    for name, begin, length in _chunks(file, size, 12, order):
        if name == b"ds64":
            file.seek(begin + 8)
            long = int.from_bytes(file.read(8), "little")
        elif name == b"data":
            if length == 0xFFFFFFFF and long is not None and 0 < long < 1 << 62:
                return begin, long
            return None if length in _UNKNOWN_32 else (begin, length)
    return None


def _form(file: BinaryIO, size: int) -> tuple[int, int] | None:
    for name, begin, length in _chunks(file, size, 12, "big"):
        if name in (b"SSND", b"BODY"):
            return None if length in _UNKNOWN_32 else (begin, length)
    return None


def _au(file: BinaryIO, size: int) -> tuple[int, int] | None:
    file.seek(0)
    order = "big" if file.read(4) == b".snd" else "little"
    begin, length = (int.from_bytes(file.read(4), order) for _ in range(2))  # type: ignore[arg-type]
    return None if length in _UNKNOWN_32 else (begin, length)


def _w64(file: BinaryIO, size: int) -> tuple[int, int] | None:
    place = 40  # after the identifiers of the file and of wave, 16 bytes each, and the file's length
    for _ in range(_MOST_CHUNKS):
        file.seek(min(place, size))
        header = file.read(24)
        length = int.from_bytes(header[16:24], "little")  # with its header of 24 bytes
        if len(header) < 24 or length < 24:
            return None
        if header.startswith(b"data"):
            return (place + 24, length - 24) if 24 < length < 1 << 62 else None
        place += length + -length % 8
    return None


def _caf(file: BinaryIO, size: int) -> tuple[int, int] | None:
    place = 8
    for _ in range(_MOST_CHUNKS):
        file.seek(min(place, size))
        header = file.read(12)
        length = int.from_bytes(header[4:12], "big", signed=True)
        if len(header) < 12 or length < 0:  # -1: up to the end of the file
            return None
        if header.startswith(b"data"):
            return place + 12, length
        place += 12 + length
    return None


def _nist(file: BinaryIO, size: int) -> tuple[int, int] | None:
    file.seek(0)
    text = file.read(1024).decode("ascii", "replace")
    values = {name: int(value) for name, value in re.findall(r"^(\w+) -i (\d{1,15})$", text, re.MULTILINE)}
    if re.search(r"sample_coding -s\d+ .*(shorten|wavpack|shortpack)", text) or "sample_count" not in values:
        return None
    frame = values.get("sample_n_bytes", 1) * values.get("channel_count", 1)
    header = re.match(r"NIST_1A\s+(\d{1,9})\s", text)
    return (int(header[1]) if header else 1024), values["sample_count"] * frame


@lru_cache(maxsize=256)  # the windows of one recording ask again and again
def _ogg_gap(path: Path, size: int, _mtime_ns: int) -> str | None:
    """What pages say is missing: each stream's are numbered, and its last one is flagged."""
    following: dict[bytes, int] = {}  # the next page of each stream that has not ended
    place = 0
    with path.open("rb", buffering=_OGG_BUFFER) as file:
        while True:
            file.seek(place)
            header = file.read(27)
            table = file.read(header[26]) if len(header) == 27 and header.startswith(b"OggS\0") else b""
            end = place + 27 + len(table) + sum(table)
            if not table or end > size:
                break  # what is left is junk, or a page that was cut
            stream, number = header[14:18], int.from_bytes(header[18:22], "little")
            if number != following.get(stream, number):
                return f"page {following[stream]} is missing"
            following[stream] = number + 1
            if header[5] & 4:
                del following[stream]
            place = end
    return "its last page is not marked as the end of the stream" if following or place == 0 else None


_FORMATS: dict[bytes, Callable[[BinaryIO, int], tuple[int, int] | None]] = {
    b"RIFF": _riff,
    b"RIFX": _riff,
    b"RF64": _riff,
    b"FORM": _form,
    b".snd": _au,
    b"dns.": _au,
    b"riff\x2e\x91\xcf\x11": _w64,
    b"caff": _caf,
    b"NIST_1A": _nist,
}
