"""What stands in the way of reading a file, said before it is opened."""

import os
import stat
from pathlib import Path

from featcache.embedded import is_embedded

FOLDER = "is a folder, not a file"


def file_problem(path: Path) -> str | None:
    """Why a path cannot be opened as a file, in words; None if it can.

    Pipes, sockets and devices are never opened: reading one may wait for ever.

    >>> file_problem(Path("none.wav"))
    'no such file'
    """
    if is_embedded(path):
        return file_problem(path.parent)
    try:
        str(path).encode()
        mode = os.stat(path).st_mode
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    except ValueError:
        return "no path has a NUL character"
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except OSError as error:
        return f"cannot be read ({(error.strerror or 'unknown error').lower()})"
    if stat.S_ISDIR(mode):
        return FOLDER
    if not stat.S_ISREG(mode):
        return "is a pipe, socket or device, not a regular file"
    return None


def printable(text: str | Path) -> str:
    """A path, or any text, that can be written anywhere in one line: what cannot is spelt out.

    >>> printable(Path("a\\nb.wav"))
    'a\\\\nb.wav'
    """
    utf8 = str(text).encode("utf-8", "backslashreplace").decode()
    return "".join(repr(sign)[1:-1] if ord(sign) < 32 or ord(sign) == 127 else sign for sign in utf8)
