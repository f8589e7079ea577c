"""Every container of weights is understood, nothing in one is executed, and each failure is one line."""

import argparse
import os
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from featcache.encoders import build_encoder
from featcache.errors import InputError, MismatchError, MissingError
from featcache.weights.checkpoint import Checkpoint, load_checkpoint, load_into, weights_digest
from featcache.weights.download import hub_client, locate

State = dict[str, Tensor]


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return nn.Linear(3, 2).state_dict()


CONTAINERS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "audiomae": lambda state: {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(lr=0.1, data_path="x", blr=None),
    },
    "beats": lambda state: {"cfg": {"encoder_layers": 12}, "model": state, "label_dict": {0: "/m/09x0r"}},
    "fairseq": lambda state: {
        "args": None,
        "cfg": {"model": {"depth": 12}},
        "model": {**state, "_ema": {key: value + 1 for key, value in state.items()}},
        "extra_state": {"val_loss": np.float64(0.5), "epoch": np.int64(3)},
    },
    "dasheng": lambda state: {"model": state, "config": {"embed_dim": 768}},
    "asit": lambda state: {
        "student": {f"module.{key}": value + 1 for key, value in state.items()},
        "teacher": state,
        "epoch": 1,
        "args": argparse.Namespace(lr=0.1),
    },
    "lightning": lambda state: {"state_dict": state, "epoch": 1},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_container_gives_its_tensors(container: str, zipped: bool, state: State, tmp_path: Path) -> None:
    torch.save(CONTAINERS[container](state), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    loaded = load_checkpoint(str(tmp_path / "w.pt"))
    assert loaded.state.keys() == state.keys()
    assert all(torch.equal(loaded.state[key], state[key]) for key in state)
    assert loaded.config == {"beats": {"encoder_layers": 12}, "dasheng": {"embed_dim": 768}}.get(
        container, {"model": {"depth": 12}} if container == "fairseq" else {}
    )


def test_safetensors_are_read(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "model.safetensors")
    assert load_checkpoint(str(tmp_path / "model.safetensors")).state.keys() == state.keys()


class Forbidden:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_forbidden_object_is_refused_and_named(zipped: bool, state: State, tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": state, "extra": Forbidden()}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"evil.pt was refused: its pickle asks for posix.system, and only tensors"
    ):
        load_checkpoint(str(path))


def _truncated(path: Path, state: State) -> None:
    torch.save({"model": state}, path)
    path.write_bytes(path.read_bytes()[:500])


def _other_zip(path: Path, _: State) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


SPOILED: dict[str, Callable[[Path, State], object]] = {
    "truncated.pt": _truncated,
    "page.pt": lambda path, _: path.write_text("<!DOCTYPE html><html>Google Drive can't scan this file"),
    "empty.pt": lambda path, _: path.write_bytes(b""),
    "other.zip": _other_zip,
    "truncated.safetensors": lambda path, _: path.write_bytes(b"\x40\0\0\0\0\0\0\0{"),
    "noise.pt": lambda path, _: path.write_bytes(bytes(range(256)) * 4),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_file_is_one_clear_line(name: str, state: State, tmp_path: Path) -> None:
    SPOILED[name](tmp_path / name, state)
    with pytest.raises(InputError, match=f"{name} is truncated or no checkpoint") as caught:
        load_checkpoint(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "holds a list, not named tensors"), ({"epoch": 3}, "holds no tensors, only epoch")],
)
def test_a_file_without_tensors_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=message):
        load_checkpoint(str(tmp_path / "w.pt"))


def test_missing_and_unexpected_keys_are_named(state: State, tmp_path: Path) -> None:
    torch.save(
        {"weight": state["weight"], "gain": state["bias"], "head.bias": state["bias"]}, tmp_path / "w.pt"
    )
    checkpoint = load_checkpoint(str(tmp_path / "w.pt"))
    with pytest.raises(
        MismatchError, match=r"missing bias; unexpected gain; give the weights of this encoder"
    ):
        load_into(nn.Linear(3, 2), checkpoint, ignored=("head.",))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("weight",), "missing bias; unexpected nothing"),
        (("weight", "bias", "gain"), "missing nothing; unexpected gain"),
    ],
)
def test_a_key_too_few_or_too_many_alone_is_refused(
    keys: tuple[str, ...], message: str, state: State
) -> None:
    checkpoint = Checkpoint(state={key: state.get(key, state["bias"]) for key in keys}, source="w.pt")
    with pytest.raises(MismatchError, match=f"w.pt does not fit the encoder: {message}"):
        load_into(nn.Linear(3, 2), checkpoint)


def test_a_tensor_of_another_shape_is_named(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(MismatchError, match=r"weight is \(2, 3\) there, \(2, 5\) here"):
        load_into(nn.Linear(5, 2), load_checkpoint(str(tmp_path / "w.pt")))


def test_half_precision_weights_are_loaded_as_float32(state: State, tmp_path: Path) -> None:
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "w.pt")
    module = nn.Linear(3, 2)
    load_into(module, load_checkpoint(str(tmp_path / "w.pt")))
    assert module.weight.dtype == torch.float32


def test_the_digest_sees_names_shapes_dtypes_and_values() -> None:
    torch.manual_seed(0)
    base = nn.Linear(4, 4)
    digests = {weights_digest(base)}
    renamed = nn.ModuleDict({"a": base})
    changed = nn.Linear(4, 4)
    changed.load_state_dict(base.state_dict())
    assert weights_digest(changed) in digests
    changed.weight.data[0, 0] += 1e-6
    reshaped = nn.Linear(2, 8)
    reshaped.weight.data, reshaped.bias.data = base.weight.data.view(8, 2), base.bias.data
    halved = nn.Linear(4, 4).bfloat16()
    digests |= {weights_digest(module) for module in (renamed, changed, reshaped, halved)}
    assert len(digests) == 5


def test_only_a_module_has_a_digest() -> None:
    with pytest.raises(InputError, match=r"must be a torch\.nn\.Module, not object"):
        weights_digest(object())


def test_a_path_that_is_not_there_is_said() -> None:
    with pytest.raises(
        MissingError, match=r"no weights at nowhere.pt; give a checkpoint file, hf-hub:owner/name"
    ):
        locate("nowhere.pt")


def test_a_url_is_fetched_once_into_the_hugging_face_home(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "served.pt")
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    calls = []

    def fetch(url: str, path: str, progress: bool) -> None:
        calls.append(url)
        Path(path).write_bytes((tmp_path / "served.pt").read_bytes())

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    url = "https://zenodo.org/records/1/files/dasheng_base.pt?download=1"
    first, second = load_checkpoint(url), load_checkpoint(url)
    assert calls == [url]
    assert first.state.keys() == second.state.keys() == state.keys()
    assert [path.name.split("-", 1)[1] for path in (tmp_path / "home/featcache").iterdir()] == [
        "dasheng_base.pt"
    ]


def test_a_url_that_cannot_be_reached_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    with pytest.raises(
        MissingError, match=r"http://127.0.0.1:9/w.pt is not in the cache and cannot be fetched"
    ) as e:
        locate("http://127.0.0.1:9/w.pt")
    assert "\n" not in str(e.value)
    assert not [path for path in (tmp_path / "featcache").iterdir() if path.is_file()]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that puts files into an otherwise empty, offline Hugging Face cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(repository: str, *names: str) -> None:
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        for name in names:
            file = folder / "snapshots/abc" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs/main").write_text("abc")

    return put


@pytest.mark.parametrize(
    ("files", "suffix", "chosen"),
    [
        (("config.json", "pytorch_model.bin", "model.safetensors"), "", "model.safetensors"),
        (("config.json", "pytorch_model.bin"), "", "pytorch_model.bin"),
        (("README.md", "sslam.pt"), "", "sslam.pt"),
        (("a.pt", "sub/b.pt"), "/sub/b.pt", "b.pt"),
    ],
)
def test_a_repository_in_the_cache_is_used_offline(
    files: tuple[str, ...], suffix: str, chosen: str, hub: Callable[..., None]
) -> None:
    hub("owner/name", *files)
    assert locate(f"hf-hub:owner/name{suffix}").name == chosen


def test_a_repository_that_is_not_in_the_cache_is_one_clear_line_offline(hub: Callable[..., None]) -> None:
    with pytest.raises(
        MissingError, match=r"hf-hub:owner/name is not in the cache and cannot be fetched"
    ) as caught:
        locate("hf-hub:owner/name")
    assert "\n" not in str(caught.value)


def test_a_repository_of_several_files_asks_for_one(
    monkeypatch: pytest.MonkeyPatch, hub: Callable[..., None]
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_: ["a.pt", "b.pt", "README.md"])
    with pytest.raises(
        MissingError, match=r"one file of weights; found: a.pt, b.pt; name it: hf-hub:owner/name/FILE"
    ):
        locate("hf-hub:owner/name")


def test_a_hub_name_without_a_repository_is_refused() -> None:
    with pytest.raises(InputError, match="names no repository; write hf-hub:owner/name"):
        locate("hf-hub:owner")


def test_whatever_a_file_holds_it_is_one_line(tmp_path: Path) -> None:
    """Bytes that are no pickle fail in torch's unpickler in many ways."""
    random, path = np.random.default_rng(0), tmp_path / "w.pt"
    texts = [b"root:x:0:0:root:/root:/bin/bash\n", b"<!DOCTYPE html>", b"\x80\x02", b"."]
    noise = [bytes(random.integers(0, 128, 40, dtype=np.uint8)) for _ in range(300)]
    for content in [*texts, *noise]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"w\.pt (is truncated or no checkpoint|was refused)") as caught:
            load_checkpoint(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("proxies", [{}, {"https": "http://proxy:3128"}])
def test_the_hub_is_not_asked_again_and_again_where_it_has_no_address(
    monkeypatch: pytest.MonkeyPatch, proxies: dict[str, str]
) -> None:
    from huggingface_hub import constants

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("featcache.weights.download.getproxies", lambda: proxies)
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with hub_client():
        assert constants.HF_HUB_OFFLINE is not bool(proxies)  # a proxy looks names up itself
    assert not constants.HF_HUB_OFFLINE
    if not proxies:
        began = time.perf_counter()
        with pytest.raises(MissingError, match="cannot be fetched"):
            load_checkpoint("hf-hub:nobody/nothing")
        with pytest.raises(MissingError, match="cannot be fetched"):
            build_encoder("timm:vit_tiny_patch16_224")
        assert time.perf_counter() - began < 20  # 90 s with its retries
