"""Audio files, opened only where their headers can be believed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import soundfile

from featcache.audio.container import cut_off, unclosed
from featcache.embedded import on_disk
from featcache.errors import AudioError
from featcache.manifest.files import file_problem, printable

# What a file can hold at most: FLAC says 65,535 samples of silence in 13 bytes.
SAMPLES_PER_BYTE = 8192


@contextmanager
def opened(path: Path, accept_truncated: bool = False) -> Iterator[soundfile.SoundFile]:
    """A regular file that is all there and holds what its header says it does.

    Args:
        accept_truncated: open a file that was cut off, too

    Raises:
        AudioError: the reason why not, also for what goes wrong while it is read.
    """
    problem = file_problem(path)
    if problem:
        raise AudioError(f"{printable(path)}: {problem}")
    with reasons(path), ExitStack() as files:
        own = files.enter_context(on_disk(path))
        missing = None if accept_truncated else cut_off(own)
        if missing:
            raise AudioError(
                f"{printable(path)}: was cut off ({missing}); replace it, or take what is there "
                "with accept_truncated",
                options=("accept_truncated",),
            )
        mended = unclosed(own)
        source = files.enter_context(mended) if mended else own
        file = files.enter_context(soundfile.SoundFile(source))
        _plausible(file, path, own.stat().st_size)
        yield file


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
