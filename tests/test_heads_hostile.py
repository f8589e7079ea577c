"""A file with a saved head is not trusted: it runs nothing, takes no memory, and is what it says."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from featcache.errors import InputError, MismatchError
from featcache.heads import HEADS, Linear, ProtoBin, build_head, load, load_config, register_head, save
from featcache.heads.head_file import HeadFile

State = dict[str, Tensor]
SIZES = {"grid": (2, 3), "num_layers": 2}
OPTIONS = {"cgp": {"num_prototypes": 5}, "ep": {"num_queries": 4}}
MARK = """
import pathlib
pathlib.Path('ran').touch()
from featcache.heads import Linear
class Mine(Linear):
    reads = 'cls'
"""
NOT = "not a head saved by featcache"


def make(path: Path, name: str = "linear", dim: int = 24, **options: Any) -> Path:
    """A saved head that nothing is wrong with."""
    torch.manual_seed(0)
    save(build_head(name, dim, 3, **SIZES, **OPTIONS.get(name, {}), **options), path)
    return path


def metadata(path: Path) -> dict[str, Any]:
    own = HeadFile(path)
    return {"name": own.name, **own.sizes, **own.options}


def rewrite(path: Path, change: Callable[[State], Any] | None = None, **said: Any) -> Path:
    """The file with other tensors, or with other words about itself."""
    state, head = load_file(path), {**metadata(path), **said}
    if change:
        change(state)
    save_file(state, path, metadata={"head": json.dumps(head), "config": "{}"})
    return path


def with_metadata(path: Path, **metadata: str) -> Path:
    save_file(load_file(path), path, metadata=metadata or None)
    return path


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def wider(state: State) -> None:
    state["classify.weight"] = torch.zeros(3, 25)


DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: cut(path, 0), NOT),
    "cut in its header": (lambda path: cut(path, 100), NOT),
    "cut in its tensors": (lambda path: cut(path, path.stat().st_size - 8), NOT),
    "a header without end": (lambda path: path.write_bytes(b"\xff" * 64), NOT),
    "a pickle": (lambda path: torch.save({"weight": torch.zeros(2)}, path), NOT),
    "no metadata": (with_metadata, "its metadata have no 'head'"),
    "other metadata": (lambda path: with_metadata(path, format="pt"), "its metadata have no 'head'"),
    "no config": (lambda path: with_metadata(path, head="{}"), "its metadata have no 'config'"),
    "no JSON": (lambda path: with_metadata(path, head="{", config="{}"), "its 'head' is no JSON object"),
    "JSON of a list": (lambda path: with_metadata(path, head="[1]", config="{}"), "'head' is no JSON object"),
    "endless JSON": (
        lambda path: with_metadata(path, head="[" * 100_000, config="{}"),
        "its 'head' is no JSON object",
    ),
    "config that is no object": (
        lambda path: with_metadata(path, head="{}", config="3"),
        "its 'config' is no JSON object",
    ),
    "no name": (lambda path: with_metadata(path, head='{"dim": 24}', config="{}"), "it does not name a head"),
    "a name that is none": (lambda path: rewrite(path, name=["linear"]), "it does not name a head"),
    "no sizes": (
        lambda path: with_metadata(path, head='{"name": "linear"}', config="{}"),
        "it says dim=None, not a whole number, 1 or more",
    ),
    "a size that is NaN": (lambda path: rewrite(path, dim=float("nan")), "it says dim=nan, not a whole"),
    "a size below one": (lambda path: rewrite(path, num_classes=-3), "it says num_classes=-3, not a whole"),
    "a size that is true": (lambda path: rewrite(path, num_classes=True), "it says num_classes=True, not a"),
    "half a class": (lambda path: rewrite(path, num_classes=2.5), "it says num_classes=2.5, not a"),
    "a grid of text": (lambda path: rewrite(path, grid="2x3"), r"it says grid='2x3', not \(F, T\)"),
    "an unknown option": (lambda path: rewrite(path, spell=1), "cannot be built: .* spell=1: its options"),
    "an option out of range": (lambda path: rewrite(path, dropout=1e400), "dropout=inf: wanted a number"),
    "an option of another type": (lambda path: rewrite(path, norm=["batch"]), "wanted one of none, batch"),
    "a smaller width": (lambda path: rewrite(path, dim=20), r"has float \(3, 24\) .* has float \(3, 20\)"),
    "a huge width": (lambda path: rewrite(path, dim=10**9), r"dim=1000000000 .* has float \(3, 1000000000\)"),
    "huge everything": (
        lambda path: rewrite(path, dim=10**9, num_classes=10**9),
        r"has float \(3,\) for 'classify.bias', where .* has float \(1000000000,\)",
    ),
    "a size beyond any address": (
        lambda path: rewrite(path, num_classes=10**18),
        "cannot be built on the meta device, .* num_classes=1000000000000000000 raised RuntimeError",
    ),
    "a size beyond any number": (
        lambda path: rewrite(path, num_classes=10**30),
        "cannot be built on the meta device, .* raised TypeError",
    ),
    "other classes": (lambda path: rewrite(path, num_classes=4), r"has float \(3,\) for 'classify.bias'"),
    "a tensor missing": (
        lambda path: rewrite(path, lambda state: state.pop("classify.bias")),
        r"has nothing for 'classify.bias', where a head 'linear' .* has float \(3,\)",
    ),
    "a tensor too many": (
        lambda path: rewrite(path, lambda state: state.update(more=torch.zeros(2))),
        r"has float \(2,\) for 'more', where .* has nothing",
    ),
    "another shape": (lambda path: rewrite(path, wider), r"has float \(3, 25\) for 'classify.weight'"),
    "whole numbers": (
        lambda path: rewrite(path, lambda state: state.update({"classify.bias": torch.zeros(3).long()})),
        r"has int64 \(3,\) for 'classify.bias', where .* has float \(3,\)",
    ),
    "numbers of no use": (
        lambda path: rewrite(path, lambda state: state.update({"classify.bias": torch.zeros(3).cfloat()})),
        r"has C64 \(3,\) for 'classify.bias'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_one_clear_line(case: str, tmp_path: Path) -> None:
    damage, message = DAMAGED[case]
    path = make(tmp_path / "head.safetensors")
    load(path)
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_another_width_is_never_loaded(name: str, tmp_path: Path) -> None:
    for dim in (20, 23, 25, 10**9):
        path = rewrite(make(tmp_path / "head", name), dim=dim)
        with pytest.raises(InputError):
            load(path)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_absurd_sizes_is_refused_before_it_takes_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "head", name)
    absurd = {"num_classes": 10**9, "grid": [10**9, 10**9], "num_layers": 10**9}
    rewrite(path, **{key: value for key, value in absurd.items() if key in metadata(path)})
    taken: list[int] = []
    build = torch.nn.Module.register_parameter

    def watch(self: torch.nn.Module, key: str, value: Any) -> None:
        taken.append(0 if value is None or value.is_meta else value.nbytes)
        build(self, key, value)

    monkeypatch.setattr(torch.nn.Module, "register_parameter", watch)
    with pytest.raises(InputError):
        load(path)
    assert sum(taken) == 0


def test_bits_of_another_width_or_of_another_head_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "head", "protobin", per_class=2)
    state = load_file(path)
    assert (state["prototypes"].shape, state["prototypes.bits"].shape) == ((0, 24), (6, 3))
    with pytest.raises(MismatchError, match=r"has float \(0, 24\) for 'prototypes', where .* \(0, 17\)"):
        load(rewrite(path, dim=17))  # as many bytes
    make(path, "protobin", per_class=2)
    rewrite(path, lambda state: state.update({"prototypes.bits": torch.zeros(6, 3).long()}))
    with pytest.raises(
        MismatchError, match=r"has int64 \(6, 3\) for 'prototypes.bits', where .* uint8 \(6, 3\)"
    ):
        load(path)
    make(path, "protofloat", per_class=2)
    rewrite(path, lambda state: state.update({"prototypes.bits": torch.zeros(6, 3, dtype=torch.uint8)}))
    with pytest.raises(MismatchError, match=r"has uint8 \(6, 3\) for 'prototypes.bits', where .* nothing"):
        load(path)


@pytest.mark.parametrize("name", ["mine.py:Mine", "{here}/mine.py:Mine", "theirs", "__import__('os')"])
def test_a_head_that_the_file_alone_names_is_not_looked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MARK)
    entry = tmp_path / "theirs-1.0.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (entry / "entry_points.txt").write_text("[featcache.heads]\ntheirs = mine:Mine\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = name.format(here=tmp_path)
    path = rewrite(make(tmp_path / "head"), name=name)
    message = "is not registered, and loading runs no code .* register it first .* or pass it: load"
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_what_the_class_that_is_given_raises_is_one_line(tmp_path: Path) -> None:
    class Picky(Linear):
        reads = "cls"

        def __init__(self, dim: int, num_classes: int, *, dropout: float = 0.0) -> None:
            raise ZeroDivisionError("on purpose\nand at length")

    path = make(tmp_path / "head")
    message = "describes what cannot be built on the meta device.* raised ZeroDivisionError: on purpose; save"
    with pytest.raises(InputError, match=message):
        load(path, head=Picky)


def test_another_class_than_the_saved_one_is_refused_by_its_tensors(tmp_path: Path) -> None:
    path = make(tmp_path / "head")
    with pytest.raises(MismatchError, match="or give the class that it was saved from"):
        load(path, head=HEADS["mlp"])


@pytest.mark.usefixtures("own_table")
def test_a_head_that_is_registered_as_the_message_says_is_found(tmp_path: Path) -> None:
    class Mine(Linear):
        reads = "cls"

    path = rewrite(make(tmp_path / "head"), name="somewhere/mine.py:Mine")
    with pytest.raises(InputError) as caught:
        load(path)
    (name,) = re.findall(r"register_head\(MyHead, name='(.*?)'\)", str(caught.value))
    register_head(Mine, name=name)
    assert isinstance(load(path), Mine)


@pytest.mark.parametrize("words", [{}, {"head": "{}"}, {"head": "{}", "config": "[]"}])
def test_the_config_of_a_damaged_file_is_one_clear_line(words: dict[str, str], tmp_path: Path) -> None:
    path = with_metadata(make(tmp_path / "head"), **words)
    with pytest.raises(InputError, match="is not a head saved by featcache"):
        load_config(path)


def test_a_head_that_was_not_built_by_name_says_how_to_save_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"this ProtoBin does not know how .*; make it with build_head\(Prot"
    ):
        save(ProtoBin(8, 3), tmp_path / "head")
    head = build_head(ProtoBin, 8, 3)
    save(head, tmp_path / "head")
    assert torch.equal(
        load(tmp_path / "head")(torch.ones(1, 2, 8), None, None), head.eval()(torch.ones(1, 2, 8), None, None)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_head_may_be_saved_in_another_float_format(dtype: torch.dtype, tmp_path: Path) -> None:
    head = build_head("linear", 8, 3).to(dtype)
    save(head, tmp_path / "head")
    assert torch.equal(load(tmp_path / "head").classify.weight, head.classify.weight.float())
