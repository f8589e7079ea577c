"""A saved head is the head that was saved, in few bytes, and exports to ONNX."""

import pytest
import torch
from safetensors import safe_open

from featcache.errors import InputError, MissingError
from featcache.heads import HEADS, build_head, load, load_config, save
from featcache.heads.checkpoint import bits_to_signs, signs_to_bits
from featcache.heads.export import export_onnx

SIZES = {"grid": (2, 3), "num_layers": 2}
OPTIONS = {"cgp": {"num_prototypes": 5}, "protobin": {"num_prototypes": 33}, "ep": {"num_queries": 4}}


def make(name):
    torch.manual_seed(0)
    return build_head(name, 24, 3, **SIZES, **OPTIONS.get(name, {})).eval()


def some_inputs(name):
    layers = (2,) if HEADS[name].reads == "layers" else ()
    return torch.randn(4, *layers, 6, 24), torch.randn(4, *layers, 24), torch.rand(4, 6) < 0.8


@pytest.mark.parametrize("name", HEADS)
def test_a_loaded_head_gives_identical_logits(name, tmp_path):
    head = make(name)
    if name == "protobin":
        with torch.no_grad():
            head.prototypes[0, :3] = torch.tensor([0.0, -0.0, 1e-30])  # zeros of both signs are +1
    save(head, tmp_path / "head.safetensors")
    loaded = load(tmp_path / "head.safetensors")
    inputs = some_inputs(name)
    assert torch.equal(loaded(*inputs), head(*inputs))
    assert not loaded.training


def test_options_and_config_come_back(tmp_path):
    head = build_head("protobin", 24, 3, per_class=2, dropout=0.3, use_padding=True)
    save(head, tmp_path / "head", config={"classes": ["a", "b", "ü"], "fingerprint": {"encoder": "eat"}})
    assert load_config(tmp_path / "head") == {"classes": ["a", "b", "ü"], "fingerprint": {"encoder": "eat"}}
    loaded = load(tmp_path / "head")
    assert (loaded.dropout.p, loaded.use_padding, len(loaded.prototypes)) == (0.3, True, 6)


def test_binary_prototypes_take_one_bit_a_weight(tmp_path):
    head = build_head("protobin", 768, 10)
    save(head, tmp_path / "head")
    with safe_open(tmp_path / "head", framework="pt") as file:
        bits = file.get_tensor("prototypes.bits")
    latent = head.prototypes
    assert bits.nbytes * 32 == latent.nbytes
    assert (tmp_path / "head").stat().st_size < latent.nbytes / 20


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 768])
def test_bits_come_back_as_signs(dim):
    latent = torch.randn(5, dim)
    assert torch.equal(bits_to_signs(signs_to_bits(latent), dim), torch.where(latent >= 0, 1.0, -1.0))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(MissingError, match=r"no saved head at .*nowhere; train one"):
        load(tmp_path / "nowhere")


def test_another_file_is_not_taken_for_a_head(tmp_path):
    (tmp_path / "text").write_text("hello, this is not a head at all")
    with pytest.raises(InputError, match=r"text is not a head saved by featcache"):
        load(tmp_path / "text")


def test_other_safetensors_are_not_taken_for_a_head(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(InputError, match="other is not a head saved by featcache"):
        load(tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mhca", "cgp"])
def test_an_exported_head_gives_equal_logits_for_any_number_of_clips(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    head = make(name)
    export_onnx(head, tmp_path / "head.onnx", num_tokens=6)
    session = runtime.InferenceSession(tmp_path / "head.onnx")
    tokens, cls, valid = some_inputs(name)
    given = {"tokens": tokens, "cls": cls, "valid": valid}
    asked = [node.name for node in session.get_inputs()]
    for count in (1, 4):
        feed = {key: given[key][:count].numpy() for key in asked}
        (logits,) = session.run(None, feed)
        expected = head(*(given[key][:count] if key in asked else None for key in given))
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


def test_export_without_its_packages_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="ONNX export needs onnx and onnxscript; pip install"):
        export_onnx(make("linear"), tmp_path / "head.onnx", num_tokens=6)
