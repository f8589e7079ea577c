"""Every encoder: equal to its authors' code, loadable at full size, independent of its batch.

Small golden weights come from the authors' classes; those of the other architectures are seeded here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from featcache.audio.fbank import KaldiFbank
from featcache.encoders import ENCODERS, Encoder, beats_encoder, dasheng, eat, encoder_spec
from featcache.encoders.asit import IGNORED as ASIT_IGNORED
from featcache.encoders.ast import load_ast
from featcache.encoders.ast import rename as rename_ast
from featcache.encoders.audiomae import IGNORED as MAE_IGNORED
from featcache.encoders.patches import Patches
from featcache.encoders.positions import mae_positions, stretch
from featcache.encoders.vit import mae_vit
from featcache.weights.checkpoint import Checkpoint

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared/golden"
FAMILY = {name: name.split("-")[0] for name in ENCODERS} | {"openbeats": "beats", "sslam": "eat"}


def golden_wave(seconds: float, rate: int = 16_000) -> Tensor:
    if seconds == 3:
        return torch.from_numpy(np.load(GOLDEN / f"wave{rate // 1000}k_short3s.npy"))
    name = "wave16k_12.3s" if rate == 16_000 else "wave32k_10s"
    return torch.from_numpy(np.load(SHARED / f"{name}.npy"))[: round(seconds * rate)]


def check(
    encoder: Any, waveform: Tensor, features: Tensor | None, tokens: Tensor, cls: Tensor | None
) -> None:
    """From the waveform to the tokens: within 1e-3 (99.9 %: 1e-4) and 2e-5."""
    own = encoder.frontend([waveform])[0]
    if features is not None:
        gap = (own - features).abs()
        assert gap.max() < 1e-3
        assert gap.flatten().kthvalue(round(0.999 * gap.numel())).values < 1e-4
    with torch.inference_mode():
        encoded = encoder(own[None], [encoder.depth])
    torch.testing.assert_close(encoded.tokens[encoder.depth], tokens, rtol=0, atol=2e-5)
    if cls is not None:
        torch.testing.assert_close(encoded.cls[encoder.depth], cls, rtol=0, atol=2e-5)


# name, folder of arrays, seconds, clip seconds, features, tokens, cls tokens in front
IN_TREE = [
    ("asit", 3, 6, None, "tokens_pert_short3s", 1),
    ("ast", 3, 10, None, "tokens_pert_short3s", 2),
    ("audiomae", 3, 10, None, "tokens_pert_short3s", 1),
    ("beats", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 0),
    ("openbeats", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 0),
    ("eat", 3, 3, "fbank_norm_short3s_var", "tokens_pert_short3s_var", 1),
    ("sslam", 3, 3, "fbank_norm_short3s_var", "tokens_pert_short3s_var", 1),
    ("dasheng", 3, 10, "melspec_db_short3s", "tokens_pert_short3s", 0),
]
BESIDE = [
    ("audiomae", 10, 10, "fbank_norm_std10s", "tokens_pert_std10s", 1),
    ("audiomae", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 1),
    ("beats", 10, 10, "fbank_norm_std10s", "tokens_pert_std10s", 0),
    ("eat", 10, 10, "fbank_norm_std10s", "tokens_pert_std10s", 1),
    ("eat", 3, 10, None, "tokens_pert_short3s", 1),
    ("dasheng", 10, 10, "melspec_db_std10s", "tokens_pert_std10s", 0),
    ("asit", 6, 6, "fbank_norm_std10s", "tokens_pert_std10s", 1),
    ("asit", 3, 6, "fbank_norm_short3s", "tokens_pert_short3s", 1),
    ("ast", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 2),
]


def _against_golden(folder: Path, weights: str, case: tuple[Any, ...]) -> None:
    name, seconds, clip_seconds, features, tokens, front = case
    options = {} if FAMILY[name] == "beats" else {"num_heads": 4}
    encoder = encoder_spec(name).build(weights, float(clip_seconds), **options)
    wanted = torch.from_numpy(np.load(folder / f"{tokens}.npy"))
    patches, cls = wanted[:, front:], wanted[:, :front].mean(1) if front else None
    if name == "ast":  # the reference is frequency-major
        patches = patches.unflatten(1, encoder.grid).transpose(1, 2).flatten(1, 2)
    inputs = None if features is None else torch.from_numpy(np.load(folder / f"{features}.npy"))
    if inputs is not None and name == "dasheng":
        inputs = inputs.T
    check(encoder, golden_wave(seconds, encoder.sample_rate), inputs, patches, cls)


@pytest.mark.parametrize("case", IN_TREE, ids=lambda case: f"{case[0]}-{case[1]}s")
def test_an_encoder_equals_its_authors_code(
    case: tuple[Any, ...], small_weights: Callable[[str], str]
) -> None:
    family = FAMILY[case[0]]
    _against_golden(GOLDEN / family, small_weights(family), case)


@pytest.mark.shared
@pytest.mark.parametrize("case", BESIDE, ids=lambda case: f"{case[0]}-{case[1]}s-in-{case[2]}s")
def test_an_encoder_equals_its_authors_code_on_longer_clips(
    case: tuple[Any, ...], small_weights: Callable[[str], str]
) -> None:
    folder = SHARED / case[0]
    small = small_weights("beats") if case[0] == "beats" else str(folder / "small_pert.safetensors")
    _against_golden(folder, small, case)


LONG = [
    ("audiomae", 10.0, "tokens_pert_long12s"),  # cut to 1024 frames, of which the last 26 are still audio
    ("beats", 12.3, "tokens_pert_long12s"),
    ("dasheng", 12.3, "tokens_pert_long12s"),  # two chunks: 252 + 55 tokens
    ("eat", 12.3, "tokens_pert_long12s_var"),
]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "clip_seconds", "output"), LONG, ids=lambda value: str(value))
def test_clips_beyond_ten_seconds_have_the_reference_statistics(
    name: str, clip_seconds: float, output: str, small_weights: Callable[[str], str]
) -> None:
    wanted = json.loads((SHARED / name / "meta.json").read_text())["outputs"][output]
    small = small_weights("beats") if name == "beats" else str(SHARED / name / "small_pert.safetensors")
    options = {} if name == "beats" else {"num_heads": 4}
    encoder = encoder_spec(name).build(small, clip_seconds, **options)
    with torch.inference_mode():
        encoded = encoder(torch.stack(encoder.frontend([golden_wave(12.3)])), [encoder.depth])
    rows = encoded.tokens[encoder.depth]
    if encoded.cls:
        rows = torch.cat([encoded.cls[encoder.depth][:, None], rows], dim=1)
    assert list(rows.shape) == wanted["shape"]
    found = [rows.mean(), rows.std(correction=0), rows.abs().max(), *rows.flatten()[:4]]
    expected = [wanted["mean"], wanted["std"], wanted["absmax"], *wanted["first4"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_ast_equals_transformers(
    small_encoder: Callable[..., Any], small_weights: Callable[[str], str]
) -> None:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    config = ASTConfig(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    model = ASTModel(config).eval()
    model.load_state_dict(torch.load(small_weights("ast")))
    waveform = golden_wave(3)
    features = ASTFeatureExtractor()(waveform.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        wanted = model(features)
    tokens = wanted.last_hidden_state[:, 2:].unflatten(1, (12, 101)).transpose(1, 2).flatten(1, 2)
    check(small_encoder("ast"), waveform, features[0], tokens, wanted.pooler_output)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_spec_is_what_is_built(name: str, small_encoder: Callable[..., Any]) -> None:
    spec, encoder = ENCODERS[name], small_encoder(name)
    assert isinstance(encoder, Encoder)
    for fact in ("sample_rate", "clip_seconds", "has_cls", "grid"):
        assert getattr(encoder, fact) == getattr(spec, fact), fact
    assert encoder.valid_tokens(round(spec.clip_seconds * spec.sample_rate)) <= spec.grid[0] * spec.grid[1]
    json.dumps(encoder.settings())


# ---- full-size checkpoints, by shape alone -------------------------------------------------


def listed(path: Path, skip: str = "") -> Checkpoint:
    """A checkpoint of the listed names and shapes, without memory."""
    state = {}
    for line in path.read_text().splitlines():
        if line.startswith("#") or (skip and line.startswith(skip)):
            continue
        key, shape, dtype = line.split("\t")
        size = tuple(int(n) for n in shape.strip("()").split(",") if n.strip())
        state[key] = torch.empty(size, dtype=getattr(torch, dtype), device="meta")
    return Checkpoint(state=state, source=path.name).without("module.")


def _fbank_patches(frames: int, rate: int = 16_000, stride: int = 16) -> Patches:
    return Patches(fbank=KaldiFbank(sample_rate=rate), mean=0.0, scale=1.0, frames=frames, stride=stride)


def _mae(checkpoint: Checkpoint) -> nn.Module:
    patches = _fbank_patches(1024)
    return mae_vit(
        checkpoint, patches, mae_positions, architecture="AudioMAE", num_heads=None, ignored=MAE_IGNORED
    )


def _asit(checkpoint: Checkpoint) -> nn.Module:
    patches, own = _fbank_patches(592, 32_000), checkpoint.without("backbone.")
    return mae_vit(own, patches, stretch, architecture="ASiT", num_heads=None, ignored=ASIT_IGNORED)


def _eat(checkpoint: Checkpoint) -> nn.Module:
    return eat.load_eat(checkpoint.with_state(eat.rename(checkpoint.state)), _fbank_patches(1024), 12)


def _ast(checkpoint: Checkpoint) -> Any:
    return load_ast(
        checkpoint.with_state(rename_ast(checkpoint.state)), _fbank_patches(1024, stride=10), None
    )


def _dasheng(checkpoint: Checkpoint) -> nn.Module:
    return dasheng.load_dasheng(checkpoint.without("encoder."), 12)


FULL: list[tuple[str, Callable[[Checkpoint], Any], int]] = [
    ("audiomae/keys_full.txt", _mae, 12),
    ("audiomae/keys_full_finetuned.txt", _mae, 12),
    ("beats/keys_full.txt", beats_encoder.load_beats, 12),
    ("asit/keys_full.txt", _asit, 12),
    ("eat/keys_full.txt", _eat, 12),
    ("eat/keys_full_finetuned_fairseq.txt", _eat, 12),
    ("eat/keys_full_hf.txt", _eat, 12),
    ("sslam/keys_full.txt", _eat, 12),
    ("sslam/keys_full_hf.txt", _eat, 12),
    ("dasheng/keys_full.txt", _dasheng, 12),
    ("ast/keys_full_transformers5.txt", _ast, 12),
]


@pytest.mark.parametrize(
    ("keys", "load", "depth"), FULL, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_a_full_size_checkpoint_loads_with_no_key_missing_or_left_over(
    keys: str, load: Callable[[Checkpoint], Any], depth: int
) -> None:
    module = load(listed(GOLDEN / keys, skip="_ema"))  # the nested teacher is dropped when a file is read
    stack = module.layers if hasattr(module, "layers") else module.blocks
    assert len(stack) == depth
    assert not any(parameter.shape.numel() == 0 for parameter in module.parameters())


V4_NAMES = (
    ("layers.", "encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
OTHER_NAMES: list[tuple[str, Callable[[Checkpoint], Any], Callable[[str], str]]] = [
    ("dasheng/keys_full.txt", _dasheng, lambda key: f"encoder.{key}"),  # the Hugging Face port
    ("beats/keys_full.txt", beats_encoder.load_beats, lambda key: f"encoder.{key}"),  # ESPnet's fine-tuning
    (
        "beats/keys_full.txt",
        beats_encoder.load_beats,
        lambda key: key.replace(".weight_g", ".parametrizations.weight.original0").replace(
            ".weight_v", ".parametrizations.weight.original1"
        ),
    ),
    ("ast/keys_full_transformers5.txt", _ast, lambda key: _replace_all(key, V4_NAMES)),
    ("asit/keys_full.txt", _asit, lambda key: f"module.{key}"),  # the student
]


def _replace_all(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for new, old in names:
        key = key.replace(new, old)
    return key


@pytest.mark.parametrize(
    ("keys", "load", "name"), OTHER_NAMES, ids=["hf-dasheng", "espnet", "torch2", "v4", "student"]
)
def test_the_same_checkpoint_under_other_names_loads(
    keys: str, load: Callable[[Checkpoint], Any], name: Callable[[str], str]
) -> None:
    full = listed(GOLDEN / keys)
    state = {name(key): tensor for key, tensor in full.state.items() if not key.startswith("front_end")}
    load(Checkpoint(state=state, source="other").without("module."))


def test_fine_tuned_audiomae_has_no_last_norm(small_encoder: Callable[..., Any], tmp_path: Path) -> None:
    state = load_file(GOLDEN / "audiomae/small_pert.safetensors")
    tuned = {key: tensor for key, tensor in state.items() if not key.startswith("norm.")}
    tuned |= {
        "fc_norm.weight": torch.ones(96),
        "fc_norm.bias": torch.zeros(96),
        "head.weight": torch.ones(527, 96),
    }
    save_file(tuned, tmp_path / "finetuned.safetensors")
    plain = small_encoder("audiomae", 1.0)
    encoder = encoder_spec("audiomae").build(str(tmp_path / "finetuned.safetensors"), 1.0, num_heads=4)
    assert "no norm" in encoder.settings()["tokens"]
    features = torch.stack(plain.frontend([golden_wave(3)[:16_000]]))
    with torch.inference_mode():
        raw, normed = encoder(features, [2]).tokens[2], plain(features, [2]).tokens[2]
        torch.testing.assert_close(plain.vit.norm(raw), normed)
