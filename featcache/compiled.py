"""C sources compiled when they are first needed, and kept in the user's folder; see docs/decisions."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from featcache.home import home, private

FLAGS = ("-O3", "-mavx2", "-mfma", "-mf16c", "-shared", "-fPIC")


def compiler() -> str | None:
    """The C compiler of this machine: ``CC``, or the first of the usual ones; None where there is none."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


@cache
def library(source: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The compiled code of a source, from the user's folder or compiled now; None where that cannot be.

    Args:
        source: the file to compile; all that lies beside it belongs to it
        flags: beside those that all sources are compiled with
    """
    import torch

    with_ = compiler()
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512") or with_ is None:
        return None
    command = [with_, *FLAGS, *flags]
    try:
        target = home() / "native" / _name(command, source)
        if _kept(command, source, target):
            return ctypes.CDLL(str(target))
        # No folder of the user's that others cannot write to: what lies there is not run.
        with tempfile.TemporaryDirectory(prefix="featcache-") as folder:
            _compile(command, source, Path(folder) / target.name)
            return ctypes.CDLL(str(Path(folder) / target.name))  # stays mapped without its file
    except (OSError, subprocess.SubprocessError):
        return None


def _name(command: list[str], source: Path) -> str:
    """What the compiled code is of: its sources, how it was compiled, and by what."""
    content = [path.read_bytes() for path in sorted(source.parent.iterdir())]
    told = subprocess.run([command[0], "--version"], check=True, capture_output=True, timeout=60).stdout
    path = shutil.which(command[0]) or command[0]
    content += [" ".join(command[1:]).encode(), path.encode(), told]
    return f"{source.stem}-{hashlib.sha256(b'|'.join(content)).hexdigest()[:16]}.so"


def _kept(command: list[str], source: Path, target: Path) -> bool:
    """Whether the compiled code lies in the user's folder, by now, and nobody else can have put it there."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if private(target.parent) and not target.exists():
            _compile(command, source, target)
    except OSError:  # a home that cannot be written
        return False
    return private(target.parent) and private(target)


def _compile(command: list[str], source: Path, target: Path) -> None:
    """Compile next to the target, then rename: two processes may do this at the same time."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        subprocess.run([*command, "-o", str(made), str(source), "-lm"], check=True, capture_output=True)
        made.chmod(0o700)
        made.replace(target)
