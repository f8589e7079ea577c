"""Fine-tuned heads written out, one file through one encoder, and the table of published checkpoints."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor
from torch.nn.functional import layer_norm

from featcache.cli.main import featcache
from featcache.encoders import ENCODERS, build_encoder
from featcache.encoders.tried import audioset_names, try_encoder
from featcache.errors import CacheError, InputError
from featcache.weights import download
from featcache.weights.checkpoint import load_checkpoint, weights_digest
from featcache.weights.known import KNOWN, PRETRAINED

# family: names of norm and linear layer, eps of the norm, what is pooled
HEADS: dict[str, tuple[str, str, float, str]] = {
    "audiomae": ("fc_norm", "head", 1e-6, "mean"),
    "beats": ("", "predictor", 0.0, "mean"),
    "eat": ("fc_norm", "head", 1e-6, "cls"),
    "dasheng": ("outputlayer.0", "outputlayer.1", 1e-5, "mean"),
    "ast": ("classifier.layernorm", "classifier.dense", 1e-12, "cls"),
    "passt": ("head.0", "head.1", 1e-5, "cls"),
}


@pytest.fixture(scope="module")
def tuned(
    small_weights: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[str, dict[str, Tensor]]]:
    """A function that gives a small checkpoint with a seeded head of 527 classes, and the head."""
    folder = tmp_path_factory.mktemp("tuned")

    def make(family: str) -> tuple[str, dict[str, Tensor]]:
        checkpoint = load_checkpoint(small_weights(family))
        dim = {"ast": 48, "passt": 48}.get(family, 96)
        norm, linear, *_ = HEADS[family]
        shapes = {f"{linear}.weight": (527, dim), f"{linear}.bias": (527,)}
        shapes |= {f"{norm}.weight": (dim,), f"{norm}.bias": (dim,)} if norm else {}
        random = torch.Generator().manual_seed(5)
        head = {key: torch.randn(shape, generator=random) for key, shape in shapes.items()}
        state = {key: value for key, value in checkpoint.state.items() if not key.startswith("norm.")}
        kept = state if family == "audiomae" else checkpoint.state  # fine-tuning drops its last norm
        content = {"model": {**kept, **head}, "cfg": dict(checkpoint.config)}
        if family == "beats":
            content["label_dict"] = {index: f"/m/{index}" for index in range(527)}
        torch.save(content, folder / f"{family}.pt")
        return str(folder / f"{family}.pt"), head

    return make


def options(family: str) -> dict[str, Any]:
    return {} if family == "beats" else {"num_heads": 4}


def waves(rate: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [0.1 * torch.randn(round(seconds * rate), generator=random) for seconds in (1.0, 0.6)]


@pytest.mark.parametrize("family", HEADS)
def test_logits_are_the_heads_formula_on_the_authors_clip_vector(
    family: str, tuned: Callable[[str], tuple[str, dict[str, Tensor]]]
) -> None:
    path, head = tuned(family)
    norm, linear, eps, pool = HEADS[family]
    encoder: Any = build_encoder(family, path, 1.0, options(family))
    clips = waves(encoder.sample_rate)
    logits = encoder.logits(clips)
    assert logits.shape == (2, 527)
    for wave, found in zip(clips, logits, strict=True):
        encoded = encoder(torch.stack(encoder.frontend([wave])), [encoder.depth])
        tokens = encoded.tokens[encoder.depth][0]
        pooled = tokens.sum(0) / len(tokens) if pool == "mean" else encoded.cls[encoder.depth][0]
        torch.testing.assert_close(encoder.clip_vectors([wave])[0], pooled)
        if norm:
            pooled = layer_norm(pooled, pooled.shape, head[f"{norm}.weight"], head[f"{norm}.bias"], eps)
        wanted = head[f"{linear}.weight"] @ pooled + head[f"{linear}.bias"]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def test_audiomaes_logits_are_those_of_timms_fine_tuned_form(
    tuned: Callable[[str], tuple[str, dict[str, Tensor]]],
) -> None:
    """Which gives the authors' fine-tuning class within 2e-7 (statistics of its run: golden/audiomae)."""
    from functools import partial

    from timm.models.vision_transformer import VisionTransformer

    path, _ = tuned("audiomae")
    encoder: Any = build_encoder("audiomae", path, 10.0, options("audiomae"))
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    vit = VisionTransformer(
        img_size=(1024, 128), patch_size=16, in_chans=1, embed_dim=96, depth=2, num_heads=4,
        num_classes=527, global_pool="avg", norm_layer=norm,
    ).eval()  # fmt: skip
    state = load_checkpoint(path).state
    vit.load_state_dict({key: state[key] for key in vit.state_dict()})
    (wave, _) = waves(16_000)
    features = torch.stack(encoder.frontend([wave]))
    with torch.inference_mode():
        wanted = vit(features[:, None])
    torch.testing.assert_close(encoder.logits([wave]), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", ["beats", "eat", "dasheng", "ast", "passt"])
def test_a_head_changes_neither_tokens_nor_digest(
    family: str,
    tuned: Callable[[str], tuple[str, dict[str, Tensor]]],
    small_encoder: Callable[..., Any],
) -> None:
    path, _ = tuned(family)
    encoder: Any = build_encoder(family, path, 1.0, options(family))
    assert weights_digest(encoder) == weights_digest(small_encoder(family, 1.0))
    assert encoder.settings() == small_encoder(family, 1.0).settings()


def test_pre_trained_weights_have_no_logits(small_encoder: Callable[..., Any]) -> None:
    with pytest.raises(
        InputError, match="hold no classifier, so they are pre-trained ones; give a fine-tuned"
    ):
        small_encoder("eat", 1.0).logits([torch.zeros(16_000)])


def run(*arguments: str) -> Any:
    return CliRunner().invoke(featcache, ["encoders", *arguments])


def test_one_command_tells_whether_a_checkpoint_works(
    tuned: Callable[[str], tuple[str, dict[str, Tensor]]], make_audio: Callable[..., Path]
) -> None:
    path, _ = tuned("eat")
    sound = make_audio("dog.wav", seconds=12.3)
    done = run("eat", "--weights", path, "--encoder-option", "num_heads=4", "--try", str(sound))
    assert done.exit_code == 0, done.output
    assert "12.30 s, encoded in" in done.output  # the whole clip is read: its mean counts
    assert "512 of 8 x 64 = 512 stand for audio, 96 wide" in done.output
    assert "fine-tuned, 527 classes" in done.output
    assert re.search(r"class +\d+\.\d%  [A-Z]", done.output)
    assert len(re.findall(r"^ +[123] +-?\d", done.output, re.MULTILINE)) == 3  # its three layers


def test_classes_are_the_largest_logits_by_the_names_of_audioset(
    tuned: Callable[[str], tuple[str, dict[str, Tensor]]], make_audio: Callable[..., Path]
) -> None:
    sound = make_audio("a.wav")
    for family in ("eat", "beats"):
        path, _ = tuned(family)
        arguments = [f"--encoder-option={k}={v}" for k, v in options(family).items()]
        done = run(family, "--weights", path, *arguments, "--try", str(sound), "--json")
        classes = json.loads(done.output)["classes"]
        encoder: Any = build_encoder(family, path, None, options(family))
        from featcache.audio import load_clip

        logits = encoder.logits([load_clip(sound, sample_rate=16_000).waveform])[0]
        best = logits.argmax().item()
        assert classes[0][0] == (audioset_names()[best] if family == "eat" else f"/m/{best}")
        assert classes[0][1] == pytest.approx(logits[best].sigmoid().item())


def test_the_names_of_audioset_are_527_in_its_order() -> None:
    names = audioset_names()
    assert len(names) == len(set(names)) == 527
    assert [names[index] for index in (0, 74, 137, 300, 500, 526)] == [
        "Speech", "Dog", "Music", "Vehicle", "Silence", "Field recording",
    ]  # fmt: skip


def test_an_outlier_channel_is_found(
    small_encoder: Callable[..., Any], make_audio: Callable[..., Path]
) -> None:
    encoder = small_encoder("beats", 1.0)
    before = try_encoder(encoder, make_audio("a.wav"))
    assert not any(each.outliers for each in before.layers)
    assert before.classes == []
    norm = encoder.beats.layers[0].final_layer_norm
    saved = norm.weight.clone()
    norm.weight[7] = 1000.0
    (first, *_) = try_encoder(encoder, make_audio("a.wav")).layers
    norm.weight.copy_(saved)  # the encoder may be another test's too
    assert list(first.outliers) == [7]
    assert first.outliers[7] > 100


def test_statistics_are_those_of_the_tokens_that_stand_for_audio(
    small_encoder: Callable[..., Any], make_audio: Callable[..., Path]
) -> None:
    from featcache.audio import load_clip

    encoder, sound = small_encoder("eat", 10.0), make_audio("a.wav", seconds=1.0)
    tried = try_encoder(encoder, sound)
    assert tried.valid == 8 * 7
    wave = load_clip(sound, sample_rate=16_000).waveform
    tokens = encoder(torch.stack(encoder.frontend([wave])), [2]).tokens[2][0, : 8 * 7]
    assert tried.layers[1].layer == 2
    assert tried.layers[1].mean == pytest.approx(tokens.mean().item(), abs=1e-6)
    assert tried.layers[1].largest == pytest.approx(tokens.abs().max().item())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--try", "a.wav"], "--try needs the NAME of an encoder"),
        (["eat", "--weights", "w.pt"], "--weights, --clip-seconds and --encoder-option go with --try FILE"),
        (["logmel", "--try", "nowhere.wav"], "nowhere.wav"),
        (["logmel", "--encoder-option", "heads", "--try", "a.wav"], "'heads' is not NAME=VALUE"),
    ],
)
def test_a_trial_that_cannot_be_is_said_in_a_line(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


# ---- published checkpoints ------------------------------------------------------------------


def test_every_published_checkpoint_belongs_to_an_encoder_and_every_default_is_one() -> None:
    assert {each.encoder for each in KNOWN} <= ENCODERS.keys()
    assert len({(each.encoder, each.address, each.name) for each in KNOWN}) == len(KNOWN)
    addresses = {(each.encoder, each.address) for each in KNOWN if each.loads}
    for spec in ENCODERS.values():
        assert spec.weights is None or (spec.name, spec.weights) in addresses
    assert {each.encoder for each in KNOWN if each.trained != PRETRAINED} >= {"audiomae", "beats", "eat"}


def test_an_encoder_shows_its_checkpoints_and_options() -> None:
    done = run("eat")
    assert re.search(
        r"checkpoint +worstchan/EAT-base_epoch30_finetune_AS2M: fine-tuned on Audio", done.output
    )
    assert re.search(r"options +num_heads", done.output)
    assert json.loads(run("audiomae", "--json").output)["options"] == ["num_heads", "final_norm"]


def test_a_page_has_every_published_checkpoint() -> None:
    page = (Path(__file__).parents[1] / "docs/encoders.md").read_text(encoding="utf-8")
    assert [each.name for each in KNOWN if each.name not in page] == []


def test_what_will_be_fetched_is_said_before_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def offline(self: Any, repository: str) -> list[str]:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", offline)
    with pytest.raises(InputError, match="cannot be fetched"):
        build_encoder("eat")
    assert "fetching hf-hub:worstchan/EAT-base_epoch30_pretrain" in caplog.text
    assert "(pre-trained; licence: MIT (repository))" in caplog.text


def test_a_download_that_is_not_what_the_hub_says_is_refused_and_deleted(tmp_path: Path) -> None:
    import hashlib

    for content in (b"weights", b"spoiled"):
        blob = tmp_path / hashlib.sha256(b"weights").hexdigest()
        blob.write_bytes(content)
        link = tmp_path / "model.safetensors"
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
        if content == b"weights":
            assert download._verified(link, "hf-hub:a/b") == link
        else:
            with pytest.raises(
                CacheError, match=r"hf-hub:a/b came with the sha256 .*, the Hub says .*; fetch"
            ):
                download._verified(link, "hf-hub:a/b")
            assert not blob.exists()
