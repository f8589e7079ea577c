"""``hf:``: tiny seeded models of each family, saved to folders; nothing is downloaded."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from featcache.encoders import build_encoder, encoder_spec
from featcache.errors import AudioError, InputError, MismatchError, MissingError
from featcache.testing import check_encoder

transformers = pytest.importorskip("transformers")

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
CONVS = {
    "conv_dim": (16, 16, 16), "conv_stride": (5, 8, 8), "conv_kernel": (10, 8, 8),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
COUNTS = {
    "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 60,
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
CLAP = {
    "patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 2, 2, 2],
}  # fmt: skip

# family: configuration, its arguments, feature extractor, its arguments, (F, T) of 1 s, fewest samples
FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], tuple[int, int], int]] = {
    "wav2vec2": ("Wav2Vec2Config", {**SIZE, **CONVS}, "Wav2Vec2FeatureExtractor", {}, (1, 49), 325),
    "wav2vec2-large": (  # and MMS: norms before the blocks, masks for padded batches
        "Wav2Vec2Config",
        {**SIZE, **CONVS, "do_stable_layer_norm": True, "feat_extract_norm": "layer"},
        "Wav2Vec2FeatureExtractor", {"return_attention_mask": True}, (1, 49), 325,
    ),
    "hubert": ("HubertConfig", {**SIZE, **CONVS}, "Wav2Vec2FeatureExtractor", {}, (1, 49), 325),
    "wavlm": ("WavLMConfig", {**SIZE, **CONVS}, "Wav2Vec2FeatureExtractor", {}, (1, 49), 325),
    "data2vec-audio": (
        "Data2VecAudioConfig", {**SIZE, **CONVS}, "Wav2Vec2FeatureExtractor", {}, (1, 49), 325,
    ),
    "sew": (
        "SEWConfig", {**SIZE, **CONVS, "squeeze_factor": 2}, "Wav2Vec2FeatureExtractor", {}, (1, 48), 645,
    ),
    "unispeech": ("UniSpeechConfig", {**SIZE, **CONVS}, "Wav2Vec2FeatureExtractor", {}, (1, 49), 325),
    "unispeech-sat": ("UniSpeechSatConfig", {**SIZE, **CONVS}, "Wav2Vec2FeatureExtractor", {}, (1, 49), 325),
    "wav2vec2-conformer": (
        "Wav2Vec2ConformerConfig", {**SIZE, **CONVS, "position_embeddings_type": "rotary"},
        "Wav2Vec2FeatureExtractor", {}, (1, 49), 325,
    ),
    "wav2vec2-bert": (
        "Wav2Vec2BertConfig", {**SIZE, "feature_projection_input_dim": 160}, "SeamlessM4TFeatureExtractor",
        {}, (1, 49), 560,
    ),
    "moonshine": (
        "MoonshineConfig",
        {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 60, "encoder_num_hidden_layers": 2,
         "decoder_num_hidden_layers": 1, "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4},
        "Wav2Vec2FeatureExtractor", {"do_normalize": False}, (1, 40), 895,
    ),
    "whisper": (
        "WhisperConfig",
        {**COUNTS, **IDS, "d_model": 32, "max_source_positions": 100, "suppress_tokens": [],
         "begin_suppress_tokens": []},
        "WhisperFeatureExtractor", {"chunk_length": 2}, (1, 50), 1,
    ),
    "ast": (
        "ASTConfig", {**SIZE, "max_length": 128}, "ASTFeatureExtractor", {"max_length": 128}, (12, 10), 400,
    ),
    "clap": (
        "ClapConfig", {"text_config": {**SIZE, "vocab_size": 60}, "audio_config": CLAP, "projection_dim": 32},
        "ClapFeatureExtractor", {"truncation": "rand_trunc", "max_length_s": 2}, (2, 16), 1,
    ),
    "clap-fusion": (
        "ClapConfig",
        {"text_config": {**SIZE, "vocab_size": 60}, "audio_config": {**CLAP, "enable_fusion": True},
         "projection_dim": 32},
        "ClapFeatureExtractor", {"truncation": "fusion", "max_length_s": 2}, (2, 16), 1,
    ),
    "parakeet": (
        "ParakeetEncoderConfig", {**SIZE, "subsampling_conv_channels": 16}, "ParakeetFeatureExtractor",
        {"feature_size": 80}, (1, 13), 160,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function that saves the tiny model of a family, once, and gives its ``hf:`` name."""
    folder = tmp_path_factory.mktemp("hf")

    def save(family: str) -> str:
        path = folder / family
        if not path.exists():
            config, arguments, extractor, options, *_ = FAMILIES[family]
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(getattr(transformers, config)(**arguments))
            random = torch.Generator().manual_seed(1)
            for parameter in model.parameters():  # no bias, norm or position may be trivial
                parameter.data += 0.05 * torch.randn(parameter.shape, generator=random)
            model.save_pretrained(path)
            getattr(transformers, extractor)(**options).save_pretrained(path)
        return f"hf:{path}"

    return save


@pytest.fixture(scope="module")
def built(saved: Callable[[str], str]) -> Callable[[str], Any]:
    """A function that gives the encoder of a family for clips of a second, built once."""
    return cache(lambda family: build_encoder(saved(family), clip_seconds=1.0))


def own_call(name: str, sound: Tensor) -> Any:
    """What transformers gives for one clip: extractor and model, called as their documentation does."""
    place = name.removeprefix("hf:")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(place)
    model = transformers.AutoModel.from_pretrained(place).eval()
    inputs = extractor(sound.numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if "is_longer" in inputs:  # a list in some versions; drawn at random where no clip is longer
        inputs["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
    encoder = model.get_encoder() if model.config.is_encoder_decoder else getattr(model, "audio_model", model)
    with torch.inference_mode():
        return encoder(**inputs, output_hidden_states=True)


def sound(encoder: Any, seconds: float = 1.0) -> Tensor:
    random = torch.Generator().manual_seed(2)
    return 0.1 * torch.randn(round(seconds * encoder.sample_rate), generator=random)


def written_out(family: str, state: Tensor) -> Tensor:
    """A family's output (1, ...) as time-major tokens, token by token."""
    if family == "ast":
        columns = (state.shape[1] - 2) // 12
        rows = [state[0, 2 + f * columns + t] for t in range(columns) for f in range(12)]
    elif family.startswith("clap"):
        rows = [state[0, :, f, t] for t in range(state.shape[3]) for f in range(state.shape[2])]
    else:
        rows = list(state[0])
    return torch.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers_own_call(
    family: str, saved: Callable[[str], str], built: Callable[[str], Any]
) -> None:
    encoder = built(family)
    wave = sound(encoder)
    wanted = own_call(saved(family), wave)
    layers = list(range(1, encoder.depth + 1))
    with torch.inference_mode():
        encoded = encoder(torch.stack(encoder.frontend([wave])), layers)
    last = written_out(family, wanted.last_hidden_state)
    N = encoder.grid[0] * encoder.grid[1]
    torch.testing.assert_close(encoded.tokens[encoder.depth][0], last[:N], rtol=0, atol=2e-5)
    if encoder.depth > 1:
        inner = written_out(family, wanted.hidden_states[1])
        inner = inner.repeat_interleave(2, dim=0) if family == "sew" else inner
        torch.testing.assert_close(encoded.tokens[1][0], inner[:N], rtol=0, atol=2e-5)
    if family == "ast":
        torch.testing.assert_close(encoded.cls[2], wanted.pooler_output, rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"clap-fusion"}))  # clap's, but for its patches
def test_every_family_keeps_the_contract(
    family: str, saved: Callable[[str], str], built: Callable[[str], Any]
) -> None:
    spec, encoder = encoder_spec(saved(family)), built(family)
    *_, grid, shortest = FAMILIES[family]
    check_encoder(encoder)
    assert encoder.grid == grid
    assert (spec.dim, spec.depth, spec.sample_rate) == (encoder.dim, encoder.depth, encoder.sample_rate)
    assert 0 < encoder.valid_tokens(shortest) <= 2 * encoder.grid[0]
    if shortest > 1:
        with pytest.raises(AudioError, match=rf"{shortest - 1} samples .* fewer than one token"):
            encoder.frontend([torch.zeros(shortest - 1)])


def test_only_types_that_are_tested_are_said_to_be_checked(
    saved: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from featcache.encoders import hf, hf_families

    configs = {getattr(transformers, config)().model_type for config, *_ in FAMILIES.values()}
    assert configs == hf_families.CHECKED
    assert encoder_spec(saved("hubert")).checked.startswith("transformers' own call")
    monkeypatch.setattr(hf, "CHECKED", frozenset())
    assert encoder_spec(saved("hubert")).checked == "not: no test has run this type of model"


@pytest.mark.parametrize("family", ["hubert", "wav2vec2-bert", "moonshine", "parakeet"])
def test_the_length_rule_counts_what_comes_out(family: str, built: Callable[[str], Any]) -> None:
    encoder = built(family)
    for samples in (2000, 5555, 7777, 12_345, 16_000):
        features = encoder.frontend([torch.randn(samples, generator=torch.Generator().manual_seed(0))])
        made = encoder(torch.stack(features), [encoder.depth]).tokens[encoder.depth].shape[1]
        assert encoder.valid_tokens(samples) == made


def test_sew_pads_its_output_with_a_zero_that_is_not_counted(built: Callable[[str], Any]) -> None:
    encoder = built("sew")
    tokens = encoder(torch.stack(encoder.frontend([sound(encoder)[:5555]])), [2]).tokens[2][0]
    assert len(tokens) == encoder.valid_tokens(5555) + 1 == 17
    assert not tokens[-1].any()
    assert tokens[-2].any()


def test_features_of_raw_waveforms_are_one_dimensional_and_extract(
    saved: Callable[[str], str], built: Callable[[str], Any], make_manifest: Callable[..., Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    import featcache

    encoder = built("hubert")
    assert encoder.frontend([sound(encoder)])[0].shape == (16_000,)
    result = featcache.extract(
        make_manifest(4), encoder=saved("hubert"), clip_seconds=1.0, layers="all", out=tmp_path / "c.zarr"
    )
    assert result.encoded == 4
    stored = featcache.TokenCache.open(tmp_path / "c.zarr")
    assert stored.fingerprint["encoder"] == "hf:hubert"  # not where the folder lies


# ---- bad input ------------------------------------------------------------------------------


def changed(folder: str, to: Path, change: Callable[[dict[str, Any]], Any], file: str = "config.json") -> str:
    """A copy of a saved model with another configuration."""
    shutil.copytree(folder.removeprefix("hf:"), to)
    content = json.loads((to / file).read_text())
    change(content)
    (to / file).write_text(json.dumps(content))
    return f"hf:{to}"


def test_a_model_without_an_audio_side_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig(**SIZE).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match=r"no readable preprocessor_config|no audio feature extractor"):
        build_encoder(f"hf:{tmp_path / 'bert'}")
    transformers.ViTConfig(**SIZE).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor"}')
    with pytest.raises(InputError, match=r"has no audio feature extractor that transformers knows"):
        build_encoder(f"hf:{tmp_path / 'vit'}")


def test_weights_of_another_size_are_refused(saved: Callable[[str], str], tmp_path: Path) -> None:
    name = changed(saved("hubert"), tmp_path / "wide", lambda config: config.update(intermediate_size=96))
    with pytest.raises(MismatchError, match=r"weights do not fit its config.json .*; fetch both again"):
        build_encoder(name)


def test_weights_that_lack_a_layer_are_refused(saved: Callable[[str], str], tmp_path: Path) -> None:
    name = changed(saved("hubert"), tmp_path / "deep", lambda config: config.update(num_hidden_layers=3))
    with pytest.raises(MismatchError, match=r"weights lack encoder.layers.2.* which would be random"):
        build_encoder(name)


def test_a_sample_rate_that_is_none_is_refused(saved: Callable[[str], str], tmp_path: Path) -> None:
    file = "preprocessor_config.json"
    name = changed(saved("hubert"), tmp_path / "rate", lambda own: own.update(sampling_rate=None), file)
    with pytest.raises(InputError, match=r"takes no audio of a known sample rate; give a model"):
        build_encoder(name)


@pytest.mark.parametrize(("family", "longest"), [("whisper", "2"), ("clap", "2"), ("ast", r"1.3")])
def test_clips_longer_than_its_window_are_refused(
    family: str, longest: str, saved: Callable[[str], str]
) -> None:
    with pytest.raises(InputError, match=rf"takes clips of up to {longest}\d* s, not of 12.5 s; give fewer"):
        build_encoder(saved(family), clip_seconds=12.5)


def test_clips_longer_than_its_positions_are_refused(saved: Callable[[str], str], tmp_path: Path) -> None:
    name = changed(saved("hubert"), tmp_path / "short", lambda config: config.update(max_source_positions=20))
    with pytest.raises(
        InputError, match=r"has positions for 20 tokens, and clips of 1 s give 49; give fewer"
    ):
        build_encoder(name, clip_seconds=1.0)


def test_a_config_that_asks_for_its_own_code_is_refused_unless_allowed(
    saved: Callable[[str], str], tmp_path: Path
) -> None:
    def ask(config: dict[str, Any]) -> None:
        config["model_type"] = "theirs"
        config["auto_map"] = {"AutoConfig": "theirs.TheirConfig", "AutoModel": "theirs.TheirModel"}

    name = changed(saved("hubert"), tmp_path / "theirs", ask)
    (tmp_path / "theirs/theirs.py").write_text(
        "from pathlib import Path\nfrom transformers import HubertConfig, HubertModel\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class TheirConfig(HubertConfig):\n    model_type = 'theirs'\n"
        "class TheirModel(HubertModel):\n    config_class = TheirConfig\n"
    )
    with pytest.raises(
        InputError, match=r"asks to run Python code from its repository.*trust_remote_code=true"
    ):
        build_encoder(name, clip_seconds=1.0)
    assert not (tmp_path / "ran").exists()
    allowed = build_encoder(name, clip_seconds=1.0, options={"trust_remote_code": True})
    assert (tmp_path / "ran").exists()
    assert allowed.grid == (1, 49)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hf:facebook/hubert", MissingError, r"is not in the cache and cannot be fetched"),
        ("hf:hubert", InputError, r"hf:hubert names no model; write hf:OWNER/NAME or hf:FOLDER"),
        ("hf:./nowhere", MissingError, r"no folder at ./nowhere; write hf:OWNER/NAME"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(
    name: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # what the variable sets at import
    with pytest.raises(error, match=message) as raised:
        build_encoder(name)
    assert "\n" not in str(raised.value)


def test_weights_beside_the_model_are_refused(saved: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match=r"brings its own weights; leave out w\.pt"):
        build_encoder(saved("hubert"), "w.pt")


def test_without_transformers_it_says_what_to_install(
    saved: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = saved("hubert")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="hf: encoders need transformers 5; install it with: pip install"):
        build_encoder(name)
