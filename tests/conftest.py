"""What all tests share: made-up audio, small manifests, and a home that is not the user's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
RATE = 16_000


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered digests go to a scratch folder; nothing is asked of any network."""
    monkeypatch.setenv("FEATCACHE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.exists():
            item.add_marker(pytest.mark.skip(reason=f"no {SHARED}: golden arrays and ESC-10 are not here"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a seeded tone in noise and returns its path."""

    def make(name: str, *, seconds: float = 1.0, seed: int = 0, rate: int = RATE, channels: int = 1) -> Path:
        random = np.random.default_rng(seed)
        time = np.arange(round(seconds * rate)) / rate
        tone = 0.3 * np.sin(2 * np.pi * random.uniform(200, 4000) * time)
        samples = tone[:, None] + 0.05 * random.standard_normal((len(time), channels))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.astype(np.float32), rate)
        return path

    return make


@pytest.fixture
def make_manifest(tmp_path: Path, make_audio: Callable[..., Path]) -> Callable[..., Path]:
    """A function that writes ``clips`` files of two labels with splits, and their manifest."""

    def make(clips: int = 12, *, seconds: float = 1.0, name: str = "clips.csv", first: int = 0) -> Path:
        splits = ("train", "train", "valid", "test")
        lines = ["path,labels,split"]
        for index in range(first, first + clips):
            make_audio(f"audio/{index}.wav", seconds=seconds, seed=index)
            label = ("hum", "hiss")[index // len(splits) % 2]
            lines.append(f"audio/{index}.wav,{label},{splits[index % len(splits)]}")
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return make
