"""Batches on their way through the encoder: whose shapes wait for whom, and what comes back of them."""

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from featcache.audio import decode_ahead as decoding
from featcache.cache import TokenCache
from featcache.cli.main import featcache
from featcache.encoders.base import Encoded
from featcache.errors import InputError
from featcache.extraction import runner, transfer
from featcache.extraction.batcher import MOST_WAITING, Batcher, ClipTokens
from featcache.extraction.canaries import COMPUTED
from featcache.extraction.extract import extract
from featcache.extraction.runner import Runner
from featcache.extraction.transfer import CudaTransfer, Transfer, mean_of_valid
from featcache.manifest import Clip

Make = Callable[..., Path]
CPU = torch.device("cpu")


class OwnLength(nn.Module):
    """An encoder of one token for each 100 samples, which notes its batches."""

    sample_rate, clip_seconds, grid, dim, depth, has_cls = 1000, 10.0, (1, 100), 3, 1, False

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
        return [waveform[:, None].expand(-1, 3) for waveform in waveforms]

    def whole_columns(self, features: Tensor) -> Tensor:
        return features[: len(features) // 100 * 100]

    def valid_tokens(self, num_samples: int) -> int:
        return num_samples // 100

    def settings(self) -> dict[str, Any]:
        return {}

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        self.batches.append(len(features))
        return Encoded({1: features.unflatten(1, (-1, 100)).mean(2)}, None)


def test_a_frontend_on_the_cpu_has_one_thread_and_the_encoder_those_of_before() -> None:
    threads: list[int] = []

    class Noting(OwnLength):
        def frontend(self, waveforms: Sequence[Tensor]) -> list[Tensor]:
            threads.append(torch.get_num_threads())
            if not waveforms:
                raise InputError("nothing to do")
            return super().frontend(waveforms)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        one = Runner(Noting(), device=CPU, dtype="fp32", layers=(1,))
        one.features([torch.zeros(200)])
        assert (threads, torch.get_num_threads()) == ([1], 3)
        with pytest.raises(InputError):
            one.features([])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_clips_wait_for_mates_of_their_shape_but_only_so_many() -> None:
    encoder = OwnLength()
    on_cpu = Runner(encoder, device=CPU, dtype="fp32", layers=(1,))
    stored: dict[int, ClipTokens] = {}
    batcher: Batcher[int] = Batcher(on_cpu, 4, stored.__setitem__)
    random = torch.Generator().manual_seed(0)
    lengths = [int(n) for n in torch.randint(100, 3000, (200,), generator=random)]
    most = 0
    for index, length in enumerate(lengths):
        batcher.push(index, torch.full((length,), float(index)))
        most = max(most, index + 1 - sum(encoder.batches))
    assert most <= (MOST_WAITING + 1) * 4  # and those that wait for the frontend
    batcher.flush()
    assert max(encoder.batches) == 4
    assert sum(encoder.batches) == 200
    assert len(encoder.batches) < 140  # 29 shapes, 16 clips that wait: not each alone
    for index, length in enumerate(lengths):
        assert torch.equal(stored[index].tokens[1], torch.full((length // 100, 3), float(index)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2, 7, 61])
def test_a_mean_is_that_of_the_clips_own_tokens_and_has_the_bits_that_it_has_alone(
    dtype: torch.dtype, n: int
) -> None:
    random = torch.Generator().manual_seed(0)
    tokens = (torch.randn(9, 62, 20, generator=random) * 100).to(dtype)[:, 1 : n + 1]  # as after a cls token
    tokens[2, -1, 3] = torch.nan
    valid = torch.tensor([n, n, n - 1, 1, n, 0, n // 2, n, n])
    together = mean_of_valid(tokens, valid)
    alone = [mean_of_valid(own[None], count[None])[0] for own, count in zip(tokens, valid, strict=True)]
    assert torch.equal(together, torch.stack(alone))
    for own, count, found in zip(tokens.double().numpy(), valid.tolist(), together, strict=True):
        np.testing.assert_allclose(found, own[:count].sum(0) / max(count, 1), rtol=0, atol=2e-5)


class Stream:
    """A stand-in for a stream or an event of CUDA, which notes what is asked of it."""

    said: ClassVar[list[str]] = []

    def __init__(self, device: Any = None) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.said.append(name)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CudaTransfer:
    """A GPU's way of copying, on the CPU: what it copies and in which order, not how quickly."""
    for name in ("Stream", "Event", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: Stream.said.append("keep"))
    monkeypatch.setattr(transfer, "pinned", lambda shape, dtype: torch.full(shape, 7, dtype=dtype))
    monkeypatch.setattr(runner, "transfer_of", CudaTransfer)
    Stream.said.clear()
    return CudaTransfer(CPU)


def test_the_gpus_way_gives_what_the_cpus_does(gpu: CudaTransfer) -> None:
    waveforms = [torch.randn(length) for length in (5, 3, 9)]
    assert all(map(torch.equal, gpu.up(waveforms), waveforms))
    assert Stream.said == ["wait_stream", "keep"]
    Stream.said.clear()
    encoded = Encoded({1: torch.randn(2, 6, 4), 2: torch.randn(2, 7, 4)[:, 1:]}, {2: torch.randn(2, 4)})
    wait = gpu.down(encoded, [6, 4], torch.float16)
    assert Stream.said == ["wait_stream", *["keep"] * 5, "record"]
    theirs, own = wait(), Transfer(CPU).down(encoded, [6, 4], None)()
    assert Stream.said[-1] == "synchronize"
    assert theirs.cls is not None
    assert own.cls is not None
    assert theirs.mean is not None
    assert torch.equal(theirs.cls[2], own.cls[2])
    for layer, tokens in own.tokens.items():
        assert torch.equal(theirs.tokens[layer], tokens.half())
        wanted = torch.stack([tokens[0].mean(0), tokens[1, :4].mean(0)])
        torch.testing.assert_close(theirs.mean[layer], wanted, rtol=0, atol=1e-6)


def by_clip(path: Path) -> dict[str, tuple[bytes, bytes]]:
    cache = TokenCache.open(path)
    tokens = [cache.tokens([row])[0].numpy().tobytes() for row in range(len(cache))]
    means = [own.tobytes() for own in cache.mean().numpy()]
    return dict(zip(cache.ids, zip(tokens, means, strict=True), strict=True))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("store_dtype", ["float16", "int8"])
def test_clips_have_the_same_bytes_whatever_the_batch(
    make_manifest: Make, make_audio: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_dtype: str
) -> None:
    manifest = make_manifest(11)
    for index in range(0, 11, 3):
        make_audio(f"audio/{index}.wav", seconds=0.5, seed=index)
    rest: dict[str, Any] = {"encoder": OwnLength(), "store_dtype": store_dtype, "shard_clips": 10}
    for size in (1, 3, 32):
        extract(manifest, out=tmp_path / f"{size}.zarr", batch_size=size, workers=2, **rest)
    found = [by_clip(tmp_path / f"{size}.zarr") for size in (1, 3, 32)]
    assert found[0] == found[1] == found[2]
    monkeypatch.undo()  # the CPU's way: the writer casts and sums
    extract(manifest, out=tmp_path / "cpu.zarr", batch_size=3, **rest)
    theirs, own = TokenCache.open(tmp_path / "3.zarr"), TokenCache.open(tmp_path / "cpu.zarr")
    assert {name: tokens for name, (tokens, _) in by_clip(own.path).items()} == {
        name: tokens for name, (tokens, _) in found[1].items()
    }
    torch.testing.assert_close(theirs.mean(), own.mean(), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("gpu")
def test_a_value_beyond_the_stores_dtype_is_named_as_it_was_computed(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loud(self: OwnLength, features: Tensor, layers: Sequence[int]) -> Encoded:
        tokens = features.unflatten(1, (-1, 100)).mean(2)
        tokens[-1, -1, -1] = -70_000.0
        return Encoded({1: tokens}, None)

    monkeypatch.setattr(OwnLength, "forward", loud)
    with pytest.raises(InputError, match="layer 1 has a token value of 70000, beyond the range of float16"):
        extract(make_manifest(3), out=tmp_path / "c.zarr", encoder=OwnLength())


@pytest.mark.usefixtures("gpu")
def test_the_first_clips_are_looked_at_before_they_are_cast(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far_away(self: OwnLength, features: Tensor, layers: Sequence[int]) -> Encoded:
        return Encoded({1: features.unflatten(1, (-1, 100)).mean(2) * 10 + 30_000.0}, None)

    monkeypatch.setattr(OwnLength, "forward", far_away)
    for count in (3, 12):  # fewer than are wanted, and more
        with pytest.raises(InputError, match="layer 1: float16 would flatten 100% of the channels"):
            extract(make_manifest(count), out=tmp_path / f"{count}.zarr", encoder=OwnLength())
        assert len(TokenCache.open(tmp_path / f"{count}.zarr")) == 0


class Scaled(OwnLength):
    """With weights, for the compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Linear(3, 3)

    def forward(self, features: Tensor, layers: Sequence[int]) -> Encoded:
        return Encoded({1: self.scale(features.unflatten(1, (-1, 100)).mean(2))}, None)


def test_batches_of_clips_of_full_length_go_to_the_compiler_and_are_filled_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shapes: list[tuple[int, ...]] = []

    def compiled(forward: Callable[[Tensor], Any], *, dynamic: bool) -> Callable[[Tensor], Any]:
        assert not dynamic

        def noted(features: Tensor) -> Any:
            shapes.append(tuple(features.shape))
            return forward(features)

        return noted

    on_cpu = Runner(Scaled(), device=CPU, dtype="fp32", layers=(1,))
    monkeypatch.setattr(torch, "compile", compiled)
    on_cpu.compile(4)
    assert shapes.pop() == (4, 10_000, 3)
    for count, length, goes in ((4, 10_000, True), (3, 10_000, True), (1, 10_000, True), (4, 900, False)):
        features = torch.randn(count, length, 3)
        found, wanted = on_cpu.encode(features), on_cpu.encoder(features, (1,))
        assert shapes == [(4, 10_000, 3)] * goes
        torch.testing.assert_close(found.tokens[1], wanted.tokens[1], rtol=0, atol=1e-6)
        shapes.clear()


def test_what_cannot_be_compiled_is_one_line(
    make_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor.exc import InductorError, InvalidCxxCompiler  # it takes seconds

    no_compiler = (
        r"cannot be compiled here \(.*No working C\+\+ compiler.*install a C\+\+ compiler.*--compile"
    )
    for error, message in (
        (InductorError(InvalidCxxCompiler(), None), no_compiler),
        (torch.OutOfMemoryError("CUDA out of memory"), "no memory for a batch of 32 clips; .*--batch-size"),
    ):

        def fails(features: Tensor, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(torch, "compile", lambda forward, dynamic, fails=fails: fails)
        words = ["extract", str(make_manifest(2)), "--out", str(tmp_path / "c.zarr"), "--compile"]
        result = CliRunner().invoke(featcache, words)
        assert result.exit_code == 2
        assert re.search(message, result.stderr.splitlines()[-1])
        assert not (tmp_path / "c.zarr").exists()


@pytest.mark.skipif(
    "FEATCACHE_TEST_COMPILE" not in os.environ,
    reason="compiling takes half a minute; FEATCACHE_TEST_COMPILE=1 does it where there is a compiler",
)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_compiled_tokens_are_within_the_tolerance_of_canaries(
    small_encoder: Callable[..., Any], dtype: str
) -> None:
    on_cpu = Runner(small_encoder("audiomae", 1.0), device=CPU, dtype=dtype, layers=(2,))
    features = torch.stack(on_cpu.features([0.1 * torch.randn(16_000) for _ in range(4)]))
    wanted = on_cpu.encode(features).tokens[2].float()
    on_cpu.compile(4)
    found = on_cpu.encode(features).tokens[2]
    assert 0 <= (found.float() - wanted).norm() / wanted.norm() < COMPUTED[on_cpu.dtype]
    for mates in ([0], [3, 1], [2, 0, 1], [3, 2, 1, 0]):  # they do not depend on batch mates
        assert torch.equal(on_cpu.encode(features[mates]).tokens[2], found[mates])


def test_whole_files_are_decoded_in_groups_and_parts_of_a_recording_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Noting(ThreadPoolExecutor):
        def submit(self, work: Any, *arguments: Any) -> Any:
            sizes.append(len(arguments[0]))
            return super().submit(work, *arguments)

    monkeypatch.setattr(decoding, "ThreadPoolExecutor", Noting)
    settings: dict[str, Any] = {"sample_rate": 16_000, "max_seconds": 1.0, "workers": 2, "ahead": 64}
    for end, largest in ((None, 32), (0.5, 1)):
        sizes.clear()
        clips = [Clip(id=str(index), path=tmp_path / "none.wav", end=end) for index in range(300)]
        found = list(decoding.decode_ahead(clips, **settings))
        assert [clip for clip, _ in found] == clips
        assert all("no such file" in str(reason) for _, reason in found)
        assert (max(sizes), sizes[-1], sum(sizes)) == (largest, 1, 300)
