"""What extraction relies on, for every encoder: independence, lengths, layers, clear refusals."""

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from featcache.encoders import build_encoder, encoder_spec
from featcache.encoders.base import whole_columns
from featcache.errors import AudioError, InputError, MismatchError
from featcache.extraction.runner import Runner
from featcache.testing import check_encoder

SECONDS = 0.6
BFLOAT16_BOUND = 0.05  # largest change of a token with its batch, relative to the largest value


# One encoder of each architecture: sizes and checkpoints of one differ in nothing that is tested here.
# columns of a clip of so many seconds, and how many of them a clip of 0.6 s fills
COLUMNS: dict[str, dict[float, int]] = {
    "audiomae": {1: 8, 5: 32, 10: 64, 30: 192},
    "beats": {1: 6, 5: 31, 10: 62, 30: 187},
    "asit": {1: 6, 5: 31, 6: 37, 10: 62, 30: 187},
    "eat": {1: 7, 5: 32, 10: 64, 30: 188},
    "dasheng": {1: 25, 5: 125, 10: 250, 30: 750},
    "birdmae": {1: 8, 5: 32, 10: 64, 30: 192},
    "ast": {1: 12, 5: 50, 10: 101, 30: 306},
    "m2d": {1: 7, 5: 32, 10: 63, 30: 188},
    "atst_frame": {1: 25, 5: 125, 10: 250, 30: 749},  # the frame left of each chunk of 1001
    "passt": {1: 9, 5: 49, 10: 99},
    "logmel": {1: 8, 5: 32, 10: 64, 30: 192},
}
FILLED = {
    "dasheng": 15,
    "atst_frame": 15,
    "ast": 6,
    "passt": 5,
    "beats": 3,
}  # of 0.6 s: 58 frames (Dasheng: 61); others begin 4 columns
# [samples] of the fewest frames that give a patch and that can be mirrored by half a window
SHORTEST = {"dasheng": 480, "atst_frame": 513, "m2d": 320, "passt": 4801}


def sounds(encoder: Any, count: int = 32) -> list[Tensor]:
    """Noise of many levels, silence, and some clips shorter than the rest."""
    full = round(encoder.clip_seconds * encoder.sample_rate)
    random = torch.Generator().manual_seed(3)
    levels = itertools.cycle((0.1, 1.0, 1e-4, 0.0, 0.01))
    lengths = itertools.cycle((full, full, full, full * 3 // 5))
    return [
        (torch.randn(length, generator=random) * level).clamp(-1, 1)
        for _, length, level in zip(range(count), lengths, levels, strict=False)
    ]


def encode(encoder: Any, waveforms: list[Tensor], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Tokens of each waveform as extraction makes them: batches of equal shapes."""
    features = encoder.frontend(waveforms)
    found: dict[int, Tensor] = {}
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        for shape in {feature.shape for feature in features}:
            group = [index for index, feature in enumerate(features) if feature.shape == shape]
            layer = encoder.depth
            tokens = encoder(torch.stack([features[index] for index in group]), [layer]).tokens[layer]
            found |= dict(zip(group, tokens.float(), strict=True))
    return [found[index] for index in range(len(waveforms))]


@pytest.mark.parametrize("name", COLUMNS)
def test_tokens_are_the_same_alone_in_a_batch_and_in_another_order(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, SECONDS)
    waveforms = sounds(encoder)
    together, backwards = encode(encoder, waveforms), encode(encoder, waveforms[::-1])[::-1]
    for index, waveform in enumerate(waveforms[:6]):  # of each kind one: the rest repeats them
        (alone,) = encode(encoder, [waveform])
        torch.testing.assert_close(together[index], alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(backwards[index], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", COLUMNS)
def test_bfloat16_tokens_stay_within_a_bound_whatever_the_batch(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, SECONDS)
    waveforms = sounds(encoder, 6)
    together = encode(encoder, waveforms, torch.bfloat16)
    for index, waveform in enumerate(waveforms):
        (alone,) = encode(encoder, [waveform], torch.bfloat16)
        assert (together[index] - alone).abs().max() <= BFLOAT16_BOUND * alone.abs().max()


class Attention(TorchFunctionMode):
    """Counts the calls of torch's own attention."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", COLUMNS)
def test_reduced_weights_give_the_bits_of_autocast_by_torchs_own_attention(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, SECONDS)
    layers, waveforms = (encoder.depth,), sounds(encoder, 2)
    with Attention() as attention:
        wanted = encode(encoder, waveforms, torch.bfloat16)
    assert attention.calls >= (0 if name == "logmel" else encoder.depth)
    runner = Runner(encoder, device=torch.device("cpu"), dtype="bf16", layers=layers)
    found = runner.encode(torch.stack(runner.features(waveforms))).tokens[encoder.depth]
    assert torch.equal(found.float(), torch.stack(wanted))
    kinds = {parameter.dtype for parameter in encoder.parameters()}
    assert kinds <= {torch.float32}  # the module that was given keeps its own
    assert name == "logmel" or {own.dtype for own in runner._weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", COLUMNS)
def test_every_encoder_passes_the_check_for_authors(name: str, small_encoder: Callable[..., Any]) -> None:
    check_encoder(small_encoder(name, SECONDS))


@pytest.mark.parametrize(
    ("name", "seconds"), [(name, seconds) for name, lengths in COLUMNS.items() for seconds in lengths]
)
def test_a_clip_length_becomes_tokens_by_the_encoders_rule(
    name: str, seconds: float, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, float(seconds))
    rows, columns = encoder.grid
    assert columns == COLUMNS[name][seconds]
    assert encoder.valid_tokens(round(0.6 * encoder.sample_rate)) == rows * FILLED.get(name, 4)
    full = round(seconds * encoder.sample_rate)
    waveform = 0.1 * torch.randn(full, generator=torch.Generator().manual_seed(0))
    (tokens,) = encode(encoder, [waveform])
    assert tokens.shape == (rows * columns, encoder.dim)
    assert tokens.isfinite().all()


@pytest.mark.parametrize("name", COLUMNS)
def test_clips_of_as_many_tokens_have_one_shape_and_keep_their_tokens(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, 1.0)
    noise = torch.randn(encoder.sample_rate, generator=torch.Generator().manual_seed(0)) * 0.1
    lengths = (0.5 + 0.006 * np.arange(9)) * encoder.sample_rate
    shapes = defaultdict(set)
    for features in encoder.frontend([noise[: round(length)] for length in lengths]):
        whole = whole_columns(encoder, features)
        with torch.inference_mode():
            theirs, own = (
                encoder(own[None], [encoder.depth]).tokens[encoder.depth] for own in (features, whole)
            )
        torch.testing.assert_close(own, theirs, rtol=0, atol=1e-6)
        shapes[own.shape].add(whole.shape)
    assert {len(own) for own in shapes.values()} == {1}


@pytest.mark.parametrize("name", COLUMNS)
def test_valid_tokens_are_whole_columns_that_never_fall_with_length(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, 2.0)
    lengths = np.linspace(0.2, 3.0, 200) * encoder.sample_rate
    counts = [encoder.valid_tokens(round(length)) for length in lengths]
    assert counts == sorted(counts)
    assert all(count % encoder.grid[0] == 0 for count in counts)
    assert 0 < counts[-1] <= encoder.grid[0] * encoder.grid[1]


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - {"logmel"}))
def test_layers_are_block_outputs_and_the_last_is_the_plain_result(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    encoder = small_encoder(name, SECONDS)
    features = torch.stack(encoder.frontend(sounds(encoder, 2)))
    layers = list(range(1, encoder.depth + 1))
    with torch.inference_mode():
        every, last = encoder(features, layers), encoder(features, [encoder.depth])
        first = encoder(features, [1])
    assert sorted(every.tokens) == layers
    assert torch.equal(every.tokens[encoder.depth], last.tokens[encoder.depth])
    assert torch.equal(every.tokens[1], first.tokens[1])
    assert not torch.allclose(every.tokens[1], every.tokens[2])
    assert (every.cls is not None) == encoder.has_cls
    if every.cls is not None:
        assert sorted(every.cls) == layers
        assert all(cls.shape == (2, encoder.dim) for cls in every.cls.values())


def test_tokens_are_time_major(small_encoder: Callable[..., Any]) -> None:
    """A sound that changes late leaves the first tokens of a local encoder as they were."""
    encoder = small_encoder("logmel", 1.0)
    early = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    early -= early.mean()
    late = early.clone()
    late[12_000:] = late[12_000:].flip(0)
    a, b = encode(encoder, [early, late])
    torch.testing.assert_close(a[: 4 * 8], b[: 4 * 8])
    assert not torch.allclose(a[5 * 8 : 6 * 8], b[5 * 8 : 6 * 8])


@pytest.mark.parametrize("name", ["audiomae", "asit", "ast"])
def test_all_eight_rows_of_a_column_move_together_under_a_time_shift(
    name: str, small_encoder: Callable[..., Any]
) -> None:
    """Before any attention, patch (t, f) of a clip is patch (t + 1, f) of the clip one patch later."""
    encoder = small_encoder(name, 2.0)
    rows, stride = encoder.grid[0], encoder.patches.stride
    shift = stride * encoder.patches.fbank.frame_shift
    noise = torch.randn(2 * encoder.sample_rate + shift, generator=torch.Generator().manual_seed(0))
    whole, later = noise[: 2 * encoder.sample_rate], noise[shift:]
    a, b = (feature for feature in encoder.frontend([whole, later]))
    conv = (
        encoder.model.embeddings.patch_embeddings.projection
        if name == "ast"
        else encoder.vit.patch_embed.proj
    )
    images = [feature.T[None, None] if name == "ast" else feature[None, None] for feature in (a, b)]
    with torch.inference_mode():
        maps = [conv(image)[0] for image in images]  # (D, F, T) or (D, T, F)
    if name == "ast":
        maps = [value.transpose(1, 2) for value in maps]
    first, second = (value.flatten(1).T for value in maps)  # time-major
    torch.testing.assert_close(first[rows : 8 * rows], second[: 7 * rows], rtol=0, atol=0.05)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_clip_shorter_than_one_patch_is_refused(name: str, small_encoder: Callable[..., Any]) -> None:
    encoder = small_encoder(name, SECONDS)
    shortest = SHORTEST.get(name, round(0.175 * encoder.sample_rate))
    encoder.frontend([torch.zeros(shortest)])
    with pytest.raises(AudioError, match=r"fewer than one patch \(\d+ samples"):
        encoder.frontend([torch.zeros(shortest - 1)])
    with pytest.raises(AudioError, match="leave it out or pad it"):
        encoder.valid_tokens(shortest - 1)


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_clip_length_that_is_none_is_refused(
    name: str, seconds: float, small_encoder: Callable[..., Any]
) -> None:
    with pytest.raises(
        InputError, match=r"fewer than one patch of 16|shorter than one token|positive number"
    ):
        small_encoder(name, seconds)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_layer_that_is_not_there_is_refused(name: str, small_encoder: Callable[..., Any]) -> None:
    encoder = small_encoder(name, SECONDS)
    with pytest.raises(InputError, match=rf"no layer 99; this encoder has layers [01] to {encoder.depth}"):
        encoder(torch.stack(encoder.frontend(sounds(encoder, 1))), [99])


ANOTHER = [
    (name, other)
    for name in ("audiomae", "beats", "eat", "dasheng", "asit", "ast", "birdmae")
    for other in ("audiomae", "beats", "eat", "dasheng")
    if name != other and not (other == "audiomae" and name in ("asit", "birdmae"))  # the same ViT
]


@pytest.mark.parametrize(("name", "other"), ANOTHER)
def test_weights_of_another_architecture_are_refused(
    name: str, other: str, small_weights: Callable[[str], str]
) -> None:
    with pytest.raises(
        MismatchError, match=r"is no .* checkpoint: .* is missing; it holds|missing .*; unexpected"
    ):
        encoder_spec(name).build(small_weights(other))


def test_beats_with_a_setting_that_is_not_implemented_is_refused(
    small_weights: Callable[[str], str], tmp_path: Any
) -> None:
    content = torch.load(small_weights("beats"))
    content["cfg"]["layer_norm_first"] = True
    torch.save(content, tmp_path / "beats.pt")
    with pytest.raises(MismatchError, match="layer_norm_first=True in its cfg; only False is implemented"):
        encoder_spec("beats").build(str(tmp_path / "beats.pt"))


def test_ast_without_transformers_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, small_weights: Callable[[str], str]
) -> None:
    weights = small_weights("ast")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="ast needs transformers 5; install it with: pip install"):
        build_encoder("ast", weights)


def test_an_encoder_without_public_weights_asks_for_a_path() -> None:
    with pytest.raises(InputError, match=r"the weights of asit have no address .*; give the path of .*arXiv"):
        build_encoder("asit")


def test_an_encoder_without_weights_refuses_some() -> None:
    with pytest.raises(InputError, match=r"logmel has no weights to load; leave out w\.pt"):
        build_encoder("logmel", "w.pt")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="no encoder named 'beets'; did you mean 'beats'"):
        build_encoder("beets")


def test_a_clip_too_short_for_the_encoder_is_recorded_and_the_run_goes_on(
    make_audio: Callable[..., Path], small_encoder: Callable[..., Any], tmp_path: Path
) -> None:
    import featcache

    for name, seconds in (("a", 1.0), ("short", 0.1), ("b", 0.5)):
        make_audio(f"{name}.wav", seconds=seconds)
    (tmp_path / "clips.csv").write_text("path,labels\na.wav,x\nshort.wav,x\nb.wav,x\n")
    result = featcache.extract(
        tmp_path / "clips.csv", encoder=small_encoder("beats", 1.0), out=tmp_path / "c.zarr", layers="all"
    )
    assert result.encoded == 2
    (reason,) = result.failed.values()
    assert "fewer than one patch" in reason
