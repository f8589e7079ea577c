"""Someone else's encoder: from a file, from an installed package, from timm; and the check for authors."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from featcache.cli.encoders import encoders as encoders_command
from featcache.encoders import Encoded, EncoderSpec, build_encoder, encoder_names, encoder_spec
from featcache.errors import InputError, MissingError
from featcache.testing import check_encoder

DOCS = Path(__file__).parents[1] / "docs"


def example() -> str:
    """The complete example of the page for authors."""
    page = (DOCS / "adding-an-encoder.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_encoder.py"
    path.write_text(example())
    return path


def test_the_example_of_the_docs_is_short_and_passes_the_check(file: Path) -> None:
    assert len(example().splitlines()) < 40
    check_encoder(f"{file}:MyEncoder")
    check_encoder(f"{file}:MyEncoder", clip_seconds=1.0)


def test_the_spec_of_a_file_is_read_off_its_class(file: Path) -> None:
    spec = encoder_spec(f"{file}:MyEncoder")
    assert (spec.sample_rate, spec.depth, spec.has_cls) == (16_000, 1, False)
    assert spec.licence == "not stated"


def test_a_file_may_give_a_spec_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass, replace\nfrom featcache.encoders import encoder_spec\n"
        "@dataclass\nclass Options:\n    scale: float = 1.0\n"
        "SPEC = replace(encoder_spec('logmel'), licence='mine')\n"
    )
    assert encoder_spec(f"{path}:SPEC").licence == "mine"
    assert build_encoder(f"{path}:SPEC", clip_seconds=1).grid == (8, 8)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nowhere.py:MyEncoder", MissingError, r"no encoder file at nowhere.py; write path/to/file.py:Class"),
        ("{file}:Other", InputError, r"my_encoder.py has no Other; it has: .*MyEncoder"),
    ],
)
def test_a_file_or_class_that_is_not_there_is_said(
    name: str, error: type[Exception], message: str, file: Path
) -> None:
    with pytest.raises(error, match=message):
        encoder_spec(name.format(file=file))


def test_a_class_without_its_facts_is_told_which(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("class Bare:\n    sample_rate = 16_000\n    grid = (1, 2)\n")
    with pytest.raises(
        InputError, match="has no class attribute clip_seconds, dim, depth, has_cls; docs/adding"
    ):
        encoder_spec(f"{path}:Bare")


def test_an_encoder_without_its_methods_is_told_which(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    facts = "sample_rate, clip_seconds, grid, dim, depth, has_cls = 16_000, 1.0, (1, 2), 3, 1, False"
    path.write_text(f"class Bare:\n    {facts}\n    def __init__(self, weights, clip_seconds): pass\n")
    with pytest.raises(InputError, match="lacks frontend, valid_tokens, settings, __call__; docs/adding"):
        build_encoder(f"{path}:Bare")


def test_an_installed_package_adds_its_encoders_by_an_entry_point(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "theirs-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[featcache.encoders]\ntheirs = my_encoder:MyEncoder\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert encoder_names()[-1] == "theirs"
    check_encoder("theirs", clip_seconds=1.0)
    assert "theirs" in CliRunner().invoke(encoders_command, []).output
    with pytest.raises(InputError, match=r"no encoder named 'their'; did you mean 'theirs'\?"):
        encoder_spec("their")


@pytest.fixture(scope="module")
def vit_weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A seeded ViT as timm keeps one for images: three channels, a square of positions, a head."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "vit.pt"
    torch.save(timm.create_model("vit_tiny_patch16_224", depth=2, in_chans=1).state_dict(), path)
    return str(path)


@pytest.fixture
def two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's models with two blocks, so that tests are quick."""
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, depth=2, **options))


@pytest.mark.usefixtures("two_blocks")
def test_a_timm_vit_reads_spectrograms(vit_weights: str) -> None:
    name = "timm:vit_tiny_patch16_224"
    assert encoder_spec(name).grid == (8, 64)
    encoder = build_encoder(name, vit_weights, 1.0)
    assert encoder.grid == (8, 8)
    check_encoder(encoder)


@pytest.mark.usefixtures("two_blocks")
def test_a_timm_vit_gives_what_timm_gives(vit_weights: str) -> None:
    encoder: Any = build_encoder("timm:vit_tiny_patch16_224", vit_weights, 1.0)
    features = torch.stack(encoder.frontend([0.1 * torch.randn(16_000)]))
    with torch.inference_mode():
        wanted = encoder.vit.forward_features(features[:, None])
        encoded = encoder(features, [1, 2])
    torch.testing.assert_close(encoded.tokens[2], wanted[:, 1:])
    torch.testing.assert_close(encoded.cls[2], wanted[:, 0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "timm:vit_tny_patch16_224",
            r"timm has no model 'vit_tny_patch16_224'; did you mean vit_tiny_patch16_224",
        ),
        ("timm:resnet18", "takes no image size, so it is no VisionTransformer; choose a ViT"),
        ("timm:swin_tiny_patch4_window7_224", "is a SwinTransformer, not a VisionTransformer; choose a ViT"),
    ],
)
def test_a_timm_model_that_is_no_vit_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encoder_spec(name)


def test_timm_weights_that_cannot_be_fetched_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def fail(name: str, pretrained: bool, **options: Any) -> Any:
        if pretrained:
            raise OSError("no network\nat all")
        return create(name, depth=1, **options)

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        MissingError, match=r"timm:vit_tiny_patch16_224 is not in the cache .* \(no network\)"
    ):
        build_encoder("timm:vit_tiny_patch16_224")


# ---- what the check says --------------------------------------------------------------------


class Right(nn.Module):
    """An encoder that keeps the contract; each case below breaks one line of it."""

    sample_rate, clip_seconds, grid, dim, depth, has_cls = 1000, 1.0, (2, 10), 4, 1, True

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(50, 4)
        self.eval().requires_grad_(False)

    def frontend(self, waveforms: list[Tensor]) -> list[Tensor]:
        return [w[: len(w) // 100 * 100].reshape(-1, 50).float() for w in waveforms]

    def valid_tokens(self, num_samples: int) -> int:
        return min(20, num_samples // 100 * 2)

    def forward(self, features: Tensor, layers: list[int]) -> Encoded:
        tokens = self.mix(features)
        return Encoded(dict.fromkeys(layers, tokens), dict.fromkeys(layers, tokens.mean(1)))

    def settings(self) -> dict[str, Any]:
        return {"frame": 50}


def test_an_encoder_that_keeps_the_contract_passes() -> None:
    check_encoder(Right())


def coupled(self: Right, features: Tensor, layers: list[int]) -> Encoded:
    tokens = self.mix(features) - features.mean()
    return Encoded(dict.fromkeys(layers, tokens), dict.fromkeys(layers, tokens.mean(1)))


def loudest(self: Right, waveforms: list[Tensor]) -> list[Tensor]:
    top = max(waveform.abs().max() for waveform in waveforms)
    return [features / top.clamp_min(1e-6) for features in Right().frontend(waveforms)]


def in_place(self: Right, waveforms: list[Tensor]) -> list[Tensor]:
    for waveform in waveforms:
        waveform += 1
    return Right().frontend(waveforms)


def no_cls(self: Right, features: Tensor, layers: list[int]) -> Encoded:
    return Encoded(dict.fromkeys(layers, self.mix(features)), None)


def wide(self: Right, features: Tensor, layers: list[int]) -> Encoded:
    tokens = torch.cat([self.mix(features)] * 2, dim=-1)
    return Encoded(dict.fromkeys(layers, tokens), dict.fromkeys(layers, tokens.mean(1)))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "grid": ({"grid": (20,)}, r"grid is \(20,\), not \(F, T\)"),
    "rate": ({"sample_rate": 16e3}, "sample_rate is 16000.0, not int"),
    "no method": ({"valid_tokens": None}, "has no method valid_tokens"),
    "settings": ({"settings": lambda self: {"mean": torch.ones(1)}}, r"settings\(\) is not JSON"),
    "changing": ({"settings": lambda self: {"now": torch.rand(1).item()}}, "differs from call to call"),
    "falling": ({"valid_tokens": lambda self, n: 20 - n // 200 * 2}, "valid_tokens falls as clips grow"),
    "columns": ({"valid_tokens": lambda self, n: min(20, n // 50) | 1}, "not whole columns of F = 2"),
    "too many": ({"valid_tokens": lambda self, n: n // 100 * 2}, "gives 24 for a full clip, not 1 to N = 20"),
    "too few made": ({"grid": (2, 9)}, "gives 20 for a full clip, not 1 to N = 18"),
    "half": ({"frontend": lambda self, w: [f.half() for f in Right().frontend(w)]}, "not finite float32"),
    "lost": ({"frontend": lambda self, w: Right().frontend(w)[1:]}, "gives 5 features for 6 waveforms"),
    "loudest": ({"frontend": loudest}, "frontend of waveform . differs by .* beside other waveforms"),
    "in place": ({"frontend": in_place}, "frontend changes the waveforms"),
    "coupled": ({"forward": coupled}, "layer 1 of a clip changes by .* with its batch"),
    "no cls": ({"forward": no_cls}, "has_cls is True, but it does not give a cls"),
    "a cls": ({"has_cls": False}, "gives cls although has_cls is False"),
    "wide": ({"forward": wide}, r"layer 1 gives \(2, 20, 8\), not \(2, n, 4\)"),
    "raises": ({"forward": lambda self, *_: 1 / 0}, "checking tokens, it raised ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_the_check_tells_an_author_what_is_wrong(case: str) -> None:
    members, message = WRONG[case]
    with pytest.raises(AssertionError, match=message):
        check_encoder(type("Wrong", (Right,), members)())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda encoder: encoder.train(), r"is in training mode; call .eval\(\)"),
        (lambda encoder: encoder.requires_grad_(True), "is not frozen .mix.weight requires a gradient"),
    ],
)
def test_the_check_wants_a_frozen_module(spoil: Callable[[nn.Module], Any], message: str) -> None:
    encoder = Right()
    spoil(encoder)
    with pytest.raises(AssertionError, match=message):
        check_encoder(encoder)


def test_the_check_wants_a_module() -> None:
    encoder: Any = type(
        "Plain", (), {key: value for key, value in vars(Right).items() if key != "__init__"}
    )()
    with pytest.raises(AssertionError, match=r"is not a torch.nn.Module"):
        check_encoder(encoder)


# ---- the command ----------------------------------------------------------------------------


def test_the_command_lists_every_encoder_with_its_licence() -> None:
    done = CliRunner().invoke(encoders_command, [])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert set(encoder_names()) < set(lines)
    assert "non-commercial" in lines["audiomae"]
    assert "missing" in lines["asit"]
    assert "missing" in lines["birdmae"]


@pytest.mark.parametrize("name", encoder_names())
def test_the_command_shows_one_encoder_with_licence_and_paper(name: str) -> None:
    spec: EncoderSpec = encoder_spec(name)
    output = CliRunner().invoke(encoders_command, [name]).output
    for words in (spec.licence, spec.source, spec.padding, spec.tokens, spec.clip_vector, spec.checked):
        assert words in output


def test_the_command_prints_json() -> None:
    import json

    rows = json.loads(CliRunner().invoke(encoders_command, ["--json"]).output)
    assert [row["name"] for row in rows] == encoder_names()
    one = json.loads(CliRunner().invoke(encoders_command, ["beats", "--json"]).output)
    assert (one["num_tokens"], one["grid"], one["licence"][:3]) == (496, [8, 62], "MIT")


# ---- the page -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", encoder_names())
def test_every_encoder_is_in_the_docs_with_its_licence(name: str) -> None:
    page = (DOCS / "encoders.md").read_text(encoding="utf-8")
    spec = encoder_spec(name)
    rows = [line for line in page.splitlines() if re.match(rf"\| `{re.escape(name)}`", line)]
    assert rows, f"no row of {name} in docs/encoders.md"
    assert any(f"{spec.grid[0]} x {spec.grid[1]}" in row for row in rows)
    assert any(spec.licence in row for row in rows)
    assert spec.source.split(",")[0].split(" et al.")[0] in page
