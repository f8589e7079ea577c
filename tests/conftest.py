"""What all tests share: made-up audio, small manifests, and a home that is not the user's."""

import gc
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each; before torch loads. Tests of threads ask for theirs
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import soundfile
from filelock import FileLock

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
RATE = 16_000
WARM = Path(__file__).with_name("warm.py")
MEMORY = "/dev/shm"


def pytest_configure() -> None:
    """Scratch folders lie in memory where there is room: the disk was waited for as long as was computed."""
    if not os.access(MEMORY, os.W_OK) or os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:  # compiled C is loaded
        return
    if shutil.disk_usage(MEMORY).free > 4 << 30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


@pytest.fixture(scope="session")
def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def compiled_code(of_all_workers: Path) -> Path:
    """A folder for compiled C that the homes of all tests share."""
    folder = of_all_workers / "compiled"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk() -> Iterator[None]:
    """No test lives through a loss of power, and the disk's answers were a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses a bad descriptor, too
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders for one test each, not there yet."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def _own_home(homes: Iterator[Path], compiled_code: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remembered digests go to a scratch folder; nothing is asked of any network."""
    home = next(homes)
    home.mkdir()
    (home / "native").mkdir(mode=0o700)
    monkeypatch.setenv("FEATCACHE_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    link_all(compiled_code, home / "native")
    yield
    link_all(home / "native", compiled_code)
    shutil.rmtree(home, ignore_errors=True)


def link_all(source: Path, target: Path) -> None:
    """The files of one folder in another, too."""
    for entry in os.scandir(source):
        with suppress(FileExistsError):
            os.link(entry.path, target / entry.name)


@pytest.fixture(autouse=True, scope="session")
def _warm_start(request: pytest.FixtureRequest) -> None:
    """The process of `warm_server` loads while the first tests run that do not ask for it."""
    if any("warm_folder" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("warm_folder")


@pytest.fixture(scope="session")
def warm_folder(of_all_workers: Path) -> Path:
    """Where a process that loads torch and forks will have its socket, one for all; see warm.py."""
    note = of_all_workers / "warm"
    with FileLock(of_all_workers / "warm.lock"):
        if not note.exists():
            folder = Path(mkdtemp(prefix="warm"))  # the path of a socket must be short
            owner = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
            words = [sys.executable, str(WARM), "serve", str(folder / "socket"), str(owner)]
            os.posix_spawn(sys.executable, words, os.environ)
            note.write_text(str(folder))
    return Path(note.read_text())


@pytest.fixture(scope="session")
def warm_server(warm_folder: Path) -> Path:
    """That folder when the process answers."""
    for _ in range(3000):
        if (warm_folder / "socket").exists():
            return warm_folder
        time.sleep(0.02)
    raise AssertionError("the warm process does not come up")


@pytest.fixture(scope="session")
def warm_path(warm_server: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH whose ``featcache`` and ``python`` run there."""
    for command in ("featcache", "python"):
        shim = tmp_path_factory.getbasetemp() / "shims" / command
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(
            f'#!/bin/sh\nexec {sys.executable} -IS {WARM} ask {warm_server}/socket {command} "$@"\n'
        )
        shim.chmod(0o755)
    return f"{shim.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"


@pytest.fixture(scope="session")
def warm_process(warm_server: Path) -> Callable[..., Any]:
    """A function that has a command run there, as `warm.WarmProcess`."""
    spec = importlib.util.spec_from_file_location("warm", WARM)
    assert spec is not None
    assert spec.loader is not None
    warm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(warm)

    def start(*command: object, cwd: object = "/", env: dict[str, str] | None = None) -> Any:
        return warm.WarmProcess(f"{warm_server}/socket", list(map(str, command)), cwd=cwd, env=env)

    return start


@pytest.fixture(scope="session")
def torchaudios_fbank() -> Callable[..., Any]:
    """A function that gives what torchaudio's own filter bank makes of one waveform (L,)."""
    from torchaudio.compliance import kaldi

    def reference(waveform: Any, fbank: Any) -> Any:
        centred = waveform - waveform.double().mean().float() if fbank.remove_mean else waveform
        return kaldi.fbank(
            centred[None] * fbank.gain,
            sample_frequency=fbank.sample_rate,
            window_type=fbank.window,
            num_mel_bins=fbank.num_mels,
            dither=0.0,
        )

    return reference


@pytest.fixture
def own_table() -> Iterator[None]:
    """Heads that a test registers are forgotten after it."""
    from featcache.heads import HEADS

    before = dict(HEADS)
    yield
    HEADS.clear()
    HEADS.update(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = long_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.exists():
            item.add_marker(pytest.mark.skip(reason=f"no {SHARED}: golden arrays and ESC-10 are not here"))
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def long_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Files with slow tests come first in the share that each worker begins with.

    xdist deals out consecutive tests in equal shares, and who is done takes from the end of another's.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    slow = [own for own in files.values() if any(item.get_closest_marker("slow") for item in own)]
    rest = [item for own in files.values() if own not in slow for item in own]
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        ordered += [item for own in slow[worker::workers] for item in own]
        end = len(items) * (worker + 1) // workers - len(ordered)
        ordered += rest[: max(end, 0)]
        del rest[: max(end, 0)]
    return ordered + rest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported stays: looking through all of it again and again took a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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


@pytest.fixture
def make_tokens(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, tokens_written: dict[str, Path]
) -> Callable[..., tuple[Path, Path]]:
    """A function that makes a cache as `write_tokens` does, and gives its path and that of its manifest.

    What has been written for another test is copied: a tenth of the time.
    """

    def make(clips: int = 96, *, name: str = "tokens", **settings: Any) -> tuple[Path, Path]:
        asked = repr((clips, name, sorted(settings.items())))
        if asked not in tokens_written:
            folder = tmp_path_factory.mktemp("tokens")
            write_tokens(folder, clips, name=name, **settings)
            tokens_written[asked] = folder
        shutil.copytree(tokens_written[asked], tmp_path, dirs_exist_ok=True)
        return tmp_path / f"{name}.zarr", tmp_path / f"{name}.csv"

    return make


@pytest.fixture(scope="session")
def tokens_written() -> dict[str, Path]:
    """Where `make_tokens` has written, by what was asked for."""
    return {}


def write_tokens(
    folder: Path,
    clips: int,
    *,
    classes: int = 3,
    tokens: int = 12,
    dim: int = 16,
    layers: tuple[int, ...] = (2,),
    has_cls: bool = False,
    dtype: str = "float16",
    single: bool = False,
    folds: int = 0,
    name: str,
    seed: int = 0,
    outlier: float = 0.0,  # size of a channel that says nothing, where not 0
) -> None:
    """Write a cache of seeded tokens in which labels can be found, and its manifest.

    A clip of label c has a few tokens near a direction of c. No audio: clips are joined by id.
    """
    import torch

    from featcache.cache import CacheLayout, CacheWriter

    random = np.random.default_rng(seed)
    directions = random.standard_normal((classes, dim))
    layout = CacheLayout(
        fingerprint={"encoder": "fake", "seed": seed, "layers": list(layers)}, layers=layers,
        num_tokens=tokens, dim=dim, grid=(2, tokens // 2), has_cls=has_cls, dtype=dtype,
    )  # fmt: skip
    lines = ["path,labels,id,split,fold"]
    with CacheWriter.create_or_open(folder / f"{name}.zarr", layout) as writer:
        for index in range(clips):
            own = [index % classes] if single else np.flatnonzero(random.random(classes) < 0.4).tolist()
            maps = {layer: random.standard_normal((tokens, dim)).astype(np.float32) for layer in layers}
            for label in own:
                for tokenmap in maps.values():
                    tokenmap[random.integers(0, tokens // 2, 2)] += 2 * directions[label]
            for tokenmap in maps.values() if outlier else ():
                tokenmap[:, 0] = outlier * (1 + random.standard_normal(tokens) / 10)
            split = ("train", "train", "valid", "test")[index // classes % 4]
            fold = str(index // classes % folds + 1) if folds else ""
            labels = ";".join(f"label{label}" for label in own)
            lines.append(f"{name}/{index}.wav,{labels},{name}{index},{split},{fold}")
            writer.add(
                f"{name}{index}", index.to_bytes(16, "big"),
                {layer: torch.from_numpy(tokenmap) for layer, tokenmap in maps.items()},
                {layer: torch.from_numpy(own.mean(axis=0)) for layer, own in maps.items()}
                if has_cls else None,
                tokens if index % 3 else tokens // 2 + 2,
            )  # fmt: skip
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function that gives a small checkpoint of an encoder's architecture.

    They come from the authors' classes but Bird-MAE's, which are seeded.
    """
    folder = tmp_path_factory.mktemp("weights")

    def find(family: str) -> str:
        golden, path = ROOT / "tests/golden" / family / "small_pert.safetensors", folder / f"{family}.pt"
        if golden.exists() and family != "beats":
            return str(golden)
        if not path.exists():
            import torch

            torch.save(_small_beats() if family == "beats" else _seeded_birdmae(), path)
        return str(path)

    return find


def _small_beats() -> dict[str, Any]:
    from safetensors.torch import load_file

    folder = ROOT / "tests/golden/beats"
    config = json.loads((folder / "meta.json").read_text())["small_config"]
    return {"cfg": config, "model": load_file(folder / "small_pert.safetensors")}


def _seeded_birdmae() -> dict[str, Any]:
    import torch
    from safetensors.torch import load_file

    mae = load_file(ROOT / "tests/golden/audiomae/small_pert.safetensors")
    shapes = {key: tuple(value.shape) for key, value in mae.items()}
    shapes["pos_embed"] = (1, 257, 96)
    random = torch.Generator().manual_seed(1)
    gains = {key for key in shapes if "norm" in key and key.endswith("weight")}
    return {key: (key in gains) + 0.1 * torch.randn(shape, generator=random) for key, shape in shapes.items()}


@pytest.fixture(scope="session")
def small_encoder(small_weights: Callable[[str], str]) -> Callable[..., Any]:
    """A function that builds a small version of a named encoder for a clip length."""
    from featcache.encoders import encoder_spec

    def build(name: str, clip_seconds: float | None = None) -> Any:
        if name == "logmel":
            return encoder_spec(name).build(None, clip_seconds)
        family = {"openbeats": "beats", "sslam": "eat"}.get(name, name.split("-")[0])
        options = {} if family == "beats" else {"num_heads": 4}
        return encoder_spec(name).build(small_weights(family), clip_seconds, **options)

    return build
