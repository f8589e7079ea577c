"""Audio files, opened only where their headers can be believed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soundfile

from featcache.audio.container import Unclosed, examine
from featcache.embedded import on_disk
from featcache.errors import AudioError
from featcache.manifest.files import file_problem, printable

# What a file can hold at most: FLAC says 65,535 samples of silence in 13 bytes.
SAMPLES_PER_BYTE = 8192


def opened(path: Path, accept_truncated: bool = False) -> soundfile.SoundFile:
    """A regular file that is all there and holds what its header says it does, open to be read.

    Args:
        accept_truncated: open a file that was cut off, too

    Raises:
        AudioError: the reason why not.
    """
    problem = file_problem(path)
    if problem:
        raise AudioError(f"{printable(path)}: {problem}")
    with reasons(path), on_disk(path) as own:  # libsndfile keeps what it has opened
        found = examine(own)
        if found.missing and not accept_truncated:
            raise AudioError(
                f"{printable(path)}: was cut off ({found.missing}); replace it, or take what is there "
                "with accept_truncated",
                options=("accept_truncated",),
            )
        file = soundfile.SoundFile(own if found.unclosed is None else Unclosed(own, found.unclosed))
        try:
            _plausible(file, path, found.size)
        except AudioError:
            file.close()
            raise
        return file


@contextmanager
def reasons(path: Path) -> Iterator[None]:
    """Turn what libsndfile and the system say of a file into the reason why a clip has no audio.

    Raises:
        AudioError: in their place.
    """
    try:
        yield
    except AudioError:  # some errors of ours are OSErrors, too
        raise
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(_why(path, error)) from None
    except TypeError as error:  # a file called .raw, of which soundfile wants to be told everything
        raise AudioError(_why(path, error)) from error


def _plausible(file: soundfile.SoundFile, path: Path, size: int) -> None:
    if file.samplerate <= 0 or file.frames > SAMPLES_PER_BYTE * size:
        raise AudioError(
            f"{printable(path)}: its header claims {file.frames:,} samples at {file.samplerate} Hz, "
            f"which no file of {size:,} bytes holds; the file is damaged"
        )


def _why(path: Path, error: Exception) -> str:
    name = printable(path)
    if path.exists() and path.stat().st_size == 0:
        return f"{name}: is empty (0 bytes)"
    reason = str(error).rsplit(": ", 1)[-1].strip().rstrip(".")
    return f"{name}: cannot be read as audio ({reason})"
