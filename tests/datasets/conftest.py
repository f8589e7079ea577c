"""Official layouts in miniature: the names, columns and quirks of what unpacks, and noise."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featcache.datasets.prepare import Prepared

RATE = 8_000
Unpack = Callable[[Mapping[str, object]], Path]


def sound(seconds: float, seed: int = 0, kind: str = "WAV") -> bytes:
    """Noise as the bytes of a file."""
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    content = io.BytesIO()
    soundfile.write(content, samples, RATE, format=kind)
    return content.getvalue()


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """A function that writes files below a root: text, bytes, or noise of so many seconds."""

    def write(files: Mapping[str, object]) -> Path:
        for number, (name, content) in enumerate(files.items()):
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8", newline="")
            else:
                assert isinstance(content, bytes | int | float)
                path.write_bytes(content if isinstance(content, bytes) else sound(content, number))
        return tmp_path / "data"

    return write


@pytest.fixture
def rows() -> Callable[[Prepared, Path], list[str]]:
    """A function that gives rows: path|labels|id|start|end|split|fold|group."""

    def tell(prepared: Prepared, root: Path) -> list[str]:
        lines = []
        for clip in prepared.manifest:
            end = "" if clip.end is None else f"{clip.end:g}"
            cells = [
                clip.path.relative_to(root).as_posix(), ";".join(clip.labels), clip.id, f"{clip.start:g}",
                end, clip.split or "", clip.fold or "", clip.group or "",
            ]  # fmt: skip
            lines.append("|".join(cells))
        return lines

    return tell
