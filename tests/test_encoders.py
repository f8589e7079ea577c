"""Every encoder: equal to its authors' code, loadable at full size, independent of its batch.

Small golden weights come from the authors' classes; those of the other architectures are seeded here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from featcache.audio.fbank import KaldiFbank
from featcache.encoders import (
    ENCODERS,
    Encoder,
    atst_frame,
    beats_encoder,
    build_encoder,
    dasheng,
    eat,
    encoder_spec,
    m2d,
    passt,
)
from featcache.encoders.asit import IGNORED as ASIT_IGNORED
from featcache.encoders.ast import load_ast
from featcache.encoders.ast import rename as rename_ast
from featcache.encoders.audiomae import IGNORED as MAE_IGNORED
from featcache.encoders.patches import Patches
from featcache.encoders.positions import mae_positions, stretch
from featcache.encoders.vit import mae_vit
from featcache.errors import InputError, MismatchError
from featcache.weights.checkpoint import Checkpoint

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared/golden"
FAMILY = {name: name.split("-")[0] for name in ENCODERS} | {"openbeats": "beats", "sslam": "eat"}


def golden_wave(seconds: float, rate: int = 16_000) -> Tensor:
    if seconds == 3:
        return torch.from_numpy(np.load(GOLDEN / f"wave{rate // 1000}k_short3s.npy"))
    name = "wave16k_12.3s" if rate == 16_000 else "wave32k_10s"
    return torch.from_numpy(np.load(SHARED / f"{name}.npy"))[: round(seconds * rate)]


Bank = Callable[..., Tensor]


def check(
    encoder: Any, waveform: Tensor, features: Tensor | None, tokens: Tensor, cls: Tensor | None, bank: Bank
) -> None:
    """From the waveform to the tokens, within 2e-5 on every processor.

    Each has its own float32 FFT, and the log makes up to 1e-3 of that where a frame has little energy: so
    far is torchaudio's own filter bank from the arrays that it gave on another machine. The features are held
    against that bank on this processor, and the tokens against those from the same features.
    """
    own, theirs = encoder.frontend([waveform])[0], with_bank(bank, encoder, waveform)
    encode(encoder, own, *encode(encoder, theirs))
    if features is not None:
        end = len(features)  # what the encoder pads comes after
        gap, bound = (own[:end] - features).abs(), (theirs[:end] - features).abs().max()
        assert gap.max() < bound + 1e-5
        assert gap.flatten().kthvalue(round(0.999 * gap.numel())).values < 1e-4
        own = torch.cat([features, own[end:]])
    encode(encoder, own, tokens, cls)


@torch.inference_mode()
def encode(
    encoder: Any, features: Tensor, tokens: Tensor | None = None, cls: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Tokens (1, N, D) and cls (1, D) of features, which equal those given."""
    encoded = encoder(features[None], [encoder.depth])
    found = encoded.tokens[encoder.depth], encoded.cls and encoded.cls[encoder.depth]
    for own, wanted in zip(found, (tokens, cls), strict=True):
        if wanted is not None:
            torch.testing.assert_close(own, wanted, rtol=0, atol=2e-5)
    return found


def with_bank(bank: Bank, encoder: Any, waveform: Tensor) -> Tensor:
    """Features where the filter bank, if the encoder has Kaldi's, is another."""

    def call(
        fbank: KaldiFbank,
        waveforms: list[Tensor],
        most: int | None = None,
        then: Callable[[Tensor], Tensor] = torch.clone,
    ) -> list[Tensor]:
        return [then(bank(waveform, fbank)[:most]) for waveform in waveforms]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KaldiFbank, "__call__", call)
        features: Tensor = encoder.frontend([waveform])[0]
    return features


# name, folder of arrays, seconds, clip seconds, features, tokens, cls tokens in front
IN_TREE = [
    ("asit", 3, 6, "fbank_norm_short3s", "tokens_pert_short3s", 1),
    ("ast", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 2),
    ("audiomae", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 1),
    ("beats", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 0),
    ("openbeats", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 0),
    ("eat", 3, 3, "fbank_norm_short3s_var", "tokens_pert_short3s_var", 1),
    ("sslam", 3, 3, "fbank_norm_short3s_var", "tokens_pert_short3s_var", 1),
    ("dasheng", 3, 10, "melspec_db_short3s", "tokens_pert_short3s", 0),
    ("atst_frame", 3, 10, None, "tokens_pert_short3s", 0),
    ("m2d", 3, 10, None, "tokens_pert_short3s", 0),
    ("passt", 3, 10, None, "tokens_pert_short3s", 2),
]
BESIDE = [
    ("audiomae", 10, 10, "fbank_norm_std10s", "tokens_pert_std10s", 1),
    ("audiomae", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 1),
    ("beats", 10, 10, "fbank_norm_std10s", "tokens_pert_std10s", 0),
    ("eat", 10, 10, "fbank_norm_std10s", "tokens_pert_std10s", 1),
    ("eat", 3, 10, "fbank_norm_short3s_var", "tokens_pert_short3s", 1),
    ("dasheng", 10, 10, "melspec_db_std10s", "tokens_pert_std10s", 0),
    ("asit", 6, 6, "fbank_norm_std10s", "tokens_pert_std10s", 1),
    ("asit", 3, 6, "fbank_norm_short3s", "tokens_pert_short3s", 1),
    ("ast", 3, 10, "fbank_norm_short3s", "tokens_pert_short3s", 2),
    ("atst_frame", 10, 10, None, "tokens_pert_std10s", 0),
    ("m2d", 10, 10, None, "tokens_pert_std10s", 0),  # two chunks: 38 + 25 columns
]


def _against_golden(folder: Path, weights: str, case: tuple[Any, ...], bank: Bank) -> None:
    name, seconds, clip_seconds, features, tokens, front = case
    options = {} if FAMILY[name] == "beats" else {"num_heads": 4}
    encoder = encoder_spec(name).build(weights, float(clip_seconds), **options)
    wanted = torch.from_numpy(np.load(folder / f"{tokens}.npy"))
    patches, cls = wanted[:, front:], wanted[:, :front].mean(1) if front else None
    if name in ("ast", "passt"):  # the reference is frequency-major
        patches = patches.unflatten(1, (12, -1)).transpose(1, 2).flatten(1, 2)
    if name == "m2d":  # the reference puts the five rows of a column side by side
        patches = patches.unflatten(2, (5, -1)).flatten(1, 2)
    inputs = None if features is None else torch.from_numpy(np.load(folder / f"{features}.npy"))
    if inputs is not None:
        inputs = inputs.T if name == "dasheng" else _without_padding(inputs)
    check(encoder, golden_wave(seconds, encoder.sample_rate), inputs, patches, cls, bank)


def _without_padding(features: Tensor) -> Tensor:
    (sound,) = (features != features[:, :1]).any(dim=1).nonzero(as_tuple=True)
    return features[: int(sound[-1]) + 1]


@pytest.mark.parametrize("case", IN_TREE, ids=lambda case: f"{case[0]}-{case[1]}s")
def test_an_encoder_equals_its_authors_code(
    case: tuple[Any, ...], small_weights: Callable[[str], str], torchaudios_fbank: Bank
) -> None:
    family = FAMILY[case[0]]
    _against_golden(GOLDEN / family, small_weights(family), case, torchaudios_fbank)


@pytest.mark.shared
@pytest.mark.parametrize("case", BESIDE, ids=lambda case: f"{case[0]}-{case[1]}s-in-{case[2]}s")
def test_an_encoder_equals_its_authors_code_on_longer_clips(
    case: tuple[Any, ...], small_weights: Callable[[str], str], torchaudios_fbank: Bank
) -> None:
    folder = SHARED / case[0]
    small = small_weights("beats") if case[0] == "beats" else str(folder / "small_pert.safetensors")
    _against_golden(folder, small, case, torchaudios_fbank)


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
    small_encoder: Callable[..., Any], small_weights: Callable[[str], str], torchaudios_fbank: Bank
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
    features = features[0, :298]
    check(small_encoder("ast"), waveform, features, tokens, wanted.pooler_output, torchaudios_fbank)


SPECTROGRAMS = [
    ("m2d", "lms_norm_short3s", lambda mel: (mel + 7.1) / 4.2),
    ("atst_frame", "mel_norm_short3s", lambda mel: (mel + 79.6482) / (50.6842 + 79.6482) * 2 - 1),
]


@pytest.mark.parametrize(("name", "array", "norm"), SPECTROGRAMS, ids=lambda value: str(value)[:10])
def test_a_spectrogram_is_its_authors(
    name: str, array: str, norm: Callable[[Tensor], Tensor], small_encoder: Callable[..., Any]
) -> None:
    own = norm(small_encoder(name).frontend([golden_wave(3)])[0])
    gap = (own - torch.from_numpy(np.load(GOLDEN / name / f"{array}.npy")).T).abs()
    assert gap.max() < 1e-3
    assert gap.flatten().kthvalue(round(0.999 * gap.numel())).values < 1e-4


def test_passts_clip_vector_is_its_authors(small_encoder: Callable[..., Any]) -> None:
    encoder = small_encoder("passt")
    with torch.inference_mode():
        encoded = encoder(torch.stack(encoder.frontend([golden_wave(3, 32_000)])), [2])
    wanted = torch.from_numpy(np.load(GOLDEN / "passt/features_pert_short3s.npy"))
    torch.testing.assert_close(encoded.cls[2], wanted, rtol=0, atol=2e-5)


def test_passt_beyond_its_positions_is_refused(small_weights: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match=r"has positions for 99 columns, and clips of 10.1 s give 100; give"):
        build_encoder("passt", small_weights("passt"), 10.1, {"num_heads": 4})


def test_m2d_for_32_khz_is_refused_by_the_name_of_its_folder(
    small_weights: Callable[[str], str], tmp_path: Path
) -> None:
    folder = tmp_path / "m2d_vit_base-80x608p16x16p32k"
    folder.mkdir()
    copy(small_weights("m2d"), folder / "weights.safetensors")
    with pytest.raises(MismatchError, match="is for 32 kHz by its folder's name; only M2D at 16 kHz"):
        build_encoder("m2d", str(folder / "weights.safetensors"))


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


def _atst_frame(checkpoint: Checkpoint) -> nn.Module:
    return atst_frame.load_atst_frame(checkpoint.without("model.teacher.encoder."), 12)


def _m2d(checkpoint: Checkpoint) -> nn.Module:
    return m2d.load_m2d(checkpoint.without("ar.runtime.backbone."), 12)


def _passt(checkpoint: Checkpoint) -> nn.Module:
    return passt.load_passt(checkpoint, 12)


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
    ("atst_frame/keys_full.txt", _atst_frame, 12),
    ("m2d/keys_full.txt", _m2d, 12),
    ("passt/keys_full.txt", _passt, 12),
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
    ("atst_frame/keys_full.txt", _atst_frame, lambda key: f"model.teacher.encoder.{key}"),  # Lightning
    ("m2d/keys_full.txt", _m2d, lambda key: f"module.ar.runtime.backbone.{key}"),  # fine-tuned by EVAR
]


def _replace_all(key: str, names: tuple[tuple[str, str], ...]) -> str:
    for new, old in names:
        key = key.replace(new, old)
    return key


@pytest.mark.parametrize(
    ("keys", "load", "name"),
    OTHER_NAMES,
    ids=["hf-dasheng", "espnet", "torch2", "v4", "student", "lightning", "evar"],
)
def test_the_same_checkpoint_under_other_names_loads(
    keys: str, load: Callable[[Checkpoint], Any], name: Callable[[str], str]
) -> None:
    full = listed(GOLDEN / keys)
    state = {name(key): tensor for key, tensor in full.state.items() if not key.startswith("front_end")}
    load(Checkpoint(state=state, source="other").without("module."))


@pytest.mark.parametrize(("name", "cut"), [("audiomae", 64), ("eat", 64), ("ast", 101), ("beats", 62)])
def test_extraction_gives_a_long_clip_what_its_authors_give_the_whole_file(
    name: str, cut: int, small_encoder: Callable[..., Any], tmp_path: Path
) -> None:
    """AudioMAE and EAT take mean and frames of 12.3 s and cut them; BEATs' own length is the clip's."""
    import soundfile

    import featcache

    wave = (0.1 * torch.randn(196_800, generator=torch.Generator().manual_seed(0)) + 0.05).clamp(-1, 1)
    wave[:80_000] *= 0.2
    soundfile.write(tmp_path / "long.wav", wave.numpy(), 16_000, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text("path,labels\nlong.wav,x\n")
    encoder = small_encoder(name)
    result = featcache.extract(
        tmp_path / "clips.csv", encoder=encoder, store_dtype="float32", out=tmp_path / "c.zarr"
    )
    assert (result.cut, round(result.cut_largest, 2)) == (1, 2.3)
    cache = featcache.TokenCache.open(tmp_path / "c.zarr")
    with torch.inference_mode():
        whole, ten = (
            encoder(torch.stack(encoder.frontend([each])), [encoder.depth]).tokens[encoder.depth][0]
            for each in (wave, wave[:160_000])
        )
    N = encoder.grid[0] * cut
    torch.testing.assert_close(cache.tokens([0])[0][:N], (ten if name == "beats" else whole)[:N])
    assert name == "beats" or not torch.allclose(whole, ten, atol=0.01)
    assert cache.num_valid[0] == N


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "output"), [("audiomae", "tokens_pert_long12s"), ("eat", "tokens_pert_long12s")]
)
def test_extraction_of_a_long_file_has_the_reference_statistics(
    name: str, output: str, tmp_path: Path
) -> None:
    import soundfile

    import featcache

    wanted = json.loads((SHARED / name / "meta.json").read_text())["outputs"][output]
    soundfile.write(tmp_path / "long.wav", golden_wave(12.3).numpy(), 16_000, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text("path,labels\nlong.wav,x\n")
    featcache.extract(
        tmp_path / "clips.csv", encoder=name, weights=str(SHARED / name / "small_pert.safetensors"),
        encoder_options={"num_heads": 4}, store_dtype="float32", out=tmp_path / "c.zarr",
    )  # fmt: skip
    cache = featcache.TokenCache.open(tmp_path / "c.zarr")
    rows = torch.cat([torch.as_tensor(cache.cls([0]))[:, None], torch.as_tensor(cache.tokens([0]))], dim=1)
    found = [rows.mean(), rows.std(correction=0), rows.abs().max(), *rows.flatten()[:4]]
    expected = [wanted["mean"], wanted["std"], wanted["absmax"], *wanted["first4"]]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


HEADS = [
    ("m2d", 48),
    ("atst_frame", 48),
    ("passt", 48),
    ("audiomae", 96),
    ("eat", 96),
    ("dasheng", 96),
    ("ast", 48),
    ("birdmae", 96),
    ("asit", 96),
]


@pytest.mark.parametrize(("name", "dim"), HEADS)
def test_the_number_of_heads_is_never_guessed(
    name: str, dim: int, small_weights: Callable[[str], str]
) -> None:
    with pytest.raises(InputError, match=rf"is {dim} wide, a size that was not published, .* give num_heads"):
        build_encoder(name, small_weights(name))
    with pytest.raises(InputError, match=rf"is {dim} wide, which 5 attention heads do not divide"):
        build_encoder(name, small_weights(name), options={"num_heads": 5})
    assert build_encoder(name, small_weights(name), options={"num_heads": "4"}).settings()["num_heads"] == 4


@pytest.mark.parametrize(
    ("name", "key", "config"),
    [("dasheng", "config", {"num_heads": 4}), ("eat", "cfg", {"model": {"num_heads": 4}})],
)
def test_the_number_of_heads_is_what_the_container_says(
    name: str, key: str, config: dict[str, Any], small_weights: Callable[[str], str], tmp_path: Path
) -> None:
    path = str(tmp_path / "w.pt")
    torch.save({"model": load_file(small_weights(name)), key: config}, path)
    assert build_encoder(name, path).settings()["num_heads"] == 4
    with pytest.raises(MismatchError, match="states 4 attention heads in its configuration, not num_heads=8"):
        build_encoder(name, path, options={"num_heads": 8})


def test_a_student_without_its_teacher_is_refused(tmp_path: Path) -> None:
    torch.save({"student": {"module.backbone.cls_token": torch.zeros(1)}}, tmp_path / "student.pt")
    with pytest.raises(InputError, match="holds a student and no teacher, whose weights are the ones to use"):
        build_encoder("asit", str(tmp_path / "student.pt"))


def test_options_that_are_none_are_refused(small_weights: Callable[[str], str]) -> None:
    weights = small_weights("audiomae")
    with pytest.raises(InputError, match="no option of audiomae named 'num_head'; did you mean 'num_heads'"):
        build_encoder("audiomae", weights, options={"num_head": 4})
    with pytest.raises(InputError, match="num_heads of audiomae is 'four'; wanted a whole number"):
        build_encoder("audiomae", weights, options={"num_heads": "four"})
    with pytest.raises(InputError, match="final_norm of audiomae is 'maybe'; wanted true or false"):
        build_encoder("audiomae", weights, options={"final_norm": "maybe"})
    with pytest.raises(InputError, match="logmel takes no options; leave out num_heads"):
        build_encoder("logmel", options={"num_heads": 4})


def test_audiomae_can_keep_its_last_block_as_it_is(
    small_encoder: Callable[..., Any], small_weights: Callable[[str], str]
) -> None:
    options = {"num_heads": 4, "final_norm": "false"}
    raw: Any = build_encoder("audiomae", small_weights("audiomae"), 1.0, options)
    normed = small_encoder("audiomae", 1.0)
    assert raw.settings()["tokens"] == "last block, no norm"
    features = torch.stack(raw.frontend([golden_wave(3)[:16_000]]))
    with torch.inference_mode():
        torch.testing.assert_close(
            normed.vit.norm(raw(features, [2]).tokens[2]), normed(features, [2]).tokens[2]
        )


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
