"""The library checks what it is given, as the command line does: one clear error before any work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import featcache
from featcache import heads
from featcache.errors import FeatcacheError, InputError
from featcache.heads.probing.experiment import open_experiment
from featcache.heads.probing.presets import preset_named
from featcache.heads.probing.trials import passes_of
from featcache.manifest import read_manifest

Make = Callable[..., tuple[Path, Path]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"heads": "lnear"}, "no head named 'lnear'; did you mean 'linear'"),
        ({"heads": []}, "no head to train"),
        ({"epochs": 0}, "epochs is 0; wanted a whole number, 1 or more"),
        ({"epochs": True}, "epochs is True; wanted a whole number, 1 or more"),
        ({"select": "bestt"}, "no select named 'bestt'; did you mean 'best'"),
        ({"device_cache": "maybe"}, "no device_cache named 'maybe'; known: auto, on, off"),
        ({"task": "multilabel"}, "no task named 'multilabel'; did you mean 'multi-label'"),
        ({"batch_size": 0}, "batch_size is 0; wanted a whole number, 2 or more"),
        ({"lr": -1.0}, "lr is -1.0; wanted a number above 0"),
        ({"lr": float("nan")}, "lr is nan; wanted a number above 0"),
        (
            {"lr_range": (0.1, 0.01), "search": True},
            r"lr_range is \(0\.1, 0\.01\); wanted two numbers above 0",
        ),
        ({"lr_range": ["low"], "search": True}, r"lr_range is \['low'\]; wanted two numbers above 0"),
        ({"lr_range": (0.01, 0.1)}, "no learning rate is searched for; give search, and no lr"),
        ({"lr_range": (0.01, 0.1), "lr": 0.1, "search": True}, "no learning rate is searched for"),
        ({"weight_decay": "0.1"}, "weight_decay is '0.1'; wanted a number, 0 or more"),
        ({"seeds": 0}, "seeds is 0; wanted a whole number, 1 or more"),
        ({"loss": "asymetric"}, "no loss named 'asymetric'; did you mean 'asymmetric'"),
        ({"preset": "unmut"}, "no preset named 'unmut'; did you mean 'unmute'"),
        ({"patience": 0}, "patience is 0; wanted a whole number, 1 or more"),
        ({"epoch": 3}, "no argument of probe named 'epoch'; did you mean 'epochs'"),
        ({"layers": [7]}, "no layer in .* named '7'; known: 2"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
        ({"heads": "linear:norm=bach"}, "cannot be built with norm='bach': wanted one of none, batch, layer"),
        ({"search": True, "preset": "bat"}, "leave out search, or give trials"),
    ],
)
def test_probe_refuses_what_it_cannot_work_with(
    make_tokens: Make, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        featcache.probe(*make_tokens(clips=24), out=tmp_path / "results", **{"heads": "linear"} | given)
    assert not (tmp_path / "results").exists()


def test_one_head_may_be_given_by_its_name(make_tokens: Make, tmp_path: Path) -> None:
    (result,) = featcache.probe(
        *make_tokens(), heads="linear", out=tmp_path, epochs=2, batch_size=16, seeds=1, solved=False
    )
    assert result["head"] == "linear"


def test_each_manifest_trains_as_it_would_alone(make_tokens: Make, tmp_path: Path) -> None:
    """Of another kind, or with more clips, the manifests beside it change neither steps nor batches."""
    cache, several = make_tokens(clips=120)
    lines = several.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    single = tmp_path / "single.csv"
    named = [",".join([row[0], f"label{i % 3}", *row[2:]]) for i, row in enumerate(rows)]
    single.write_text("\n".join([lines[0], *named]))
    small = tmp_path / "small.csv"
    small.write_text("\n".join(lines[:41]))

    def lengths(manifests: list[Path], preset: str) -> dict[str, tuple[int, int]]:
        opened = [read_manifest(path) for path in manifests]
        experiment = open_experiment(cache, opened, device=torch.device("cpu"), say=lambda line: None)
        passes = passes_of(experiment, preset_named(preset), 0, {})
        return {
            experiment.tasks[number].name: (settings.epochs * settings.passes, settings.batch_size)
            for settings, numbers in passes.items()
            for number in numbers
        }

    for preset, other in (("bat", single), ("plateau", small)):
        alone = {**lengths([several], preset), **lengths([other], preset)}
        assert lengths([several, other], preset) == lengths([other, several], preset) == alone
        assert len(set(alone.values())) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"encoder": "logmell"}, "no encoder named 'logmell'; did you mean 'logmel'"),
        ({"batch_size": 0}, "batch_size is 0; wanted a whole number, 1 or more"),
        ({"workers": 0}, "workers is 0; wanted a whole number, 1 or more"),
        ({"clip_seconds": 0}, "clip_seconds is 0; wanted a number above 0"),
        ({"clip_seconds": 1e9}, r"clip_seconds is 1000000000\.0; wanted a number above 0 to 3,600"),
        ({"clip_seconds": 10**400}, "clip_seconds is 1000"),
        ({"batch_size": 10**12}, "batch_size is 1000000000000; wanted .* at most 10,000"),
        ({"workers": 10**6}, "workers is 1000000; wanted .* at most 256"),
        ({"shard_clips": 10**12}, "shard_clips is 1000000000000; wanted .* at most 65,536"),
        ({"window_seconds": 1e-9}, r"window_seconds is 1e-09; wanted a number from 0\.001 to 86,400"),
        ({"window_seconds": 1.0, "hop_seconds": 1e-9}, r"hop_seconds is 1e-09; wanted a number from 0\.001"),
        ({"layers": "0-999999999999"}, "layers '0-999999999999': this encoder has layers 0 to 0"),
        ({"layers": "999999999999-0"}, "this encoder has layers 0 to 0"),
        ({"layers": "-999999999999-0"}, "layers '-999999999999-0' not understood"),
        ({"layers": "9" * 5000}, "layers '999.* not understood"),
        ({"device": "meta"}, "device 'meta' cannot be used here"),
        ({"dtype": "float32"}, "no dtype named 'float32'; known: fp32, bf16, fp16"),
        ({"store_dtype": "fp16"}, "no store_dtype named 'fp16'; known: float16, float32"),
        ({"codec": "gzip"}, "no codec named 'gzip'; known: zstd, blosc"),
        ({"shard_clips": 0.5}, "shard_clips is 0.5; wanted a whole number, 1 or more"),
        ({"window_seconds": float("nan")}, "window_seconds is nan; wanted a number from 0"),
        ({"hop_seconds": 1.0}, "hop_seconds says how far windows are apart; give window_seconds too"),
        ({"layers": "0-9"}, "layers '0-9': this encoder has layers 0 to 0"),
    ],
)
def test_extract_refuses_what_it_cannot_work_with(
    make_manifest: Callable[..., Path], tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        featcache.extract(make_manifest(2), out=tmp_path / "c.zarr", **{"clip_seconds": 1} | given)
    assert not (tmp_path / "c.zarr").exists()


def test_compare_refuses_what_it_cannot_work_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="draws is -1; wanted a whole number, 0 or more"):
        featcache.compare([], draws=-1)
    with pytest.raises(FeatcacheError, match="no results at"):
        featcache.compare(tmp_path)


def test_no_error_of_the_library_speaks_of_the_command_line() -> None:
    root = Path(__file__).parents[1]
    texts = {
        file: file.read_text() for folder in ("featcache", "heads") for file in (root / folder).rglob("*.py")
    }
    assert len(texts) > 50
    # Commands to type are named in quotes ('featcache cache verify --repair'); options alone are not.
    spoken = {
        str(file.relative_to(root)): line
        for file, text in texts.items()
        for line in text.splitlines()
        if re.search(r"[\s(]--[a-z]", re.sub(r"'featcache [^']*'", "", line))
    }
    assert spoken == {}


def test_the_public_names_are_listed_and_there() -> None:
    assert {"extract", "probe", "compare", "TokenCache", "heads"} <= set(dir(featcache))
    for name in featcache.__all__:
        assert getattr(featcache, name) is not None
    for name in heads.__all__:
        assert getattr(heads, name) is not None
    assert set(heads.__all__) == set(dir(heads))
