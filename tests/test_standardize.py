"""Channels are standardized by the train tokens, the same way wherever a head meets them, or folded away."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from featcache.cache import CacheLayout, CacheWriter, TokenCache
from featcache.heads import HEADS, build_head, load, probe, save
from featcache.heads.base import Head, Inputs
from featcache.heads.data.batch import needs_of
from featcache.heads.data.moments import channel_moments
from featcache.heads.data.source import Source
from featcache.heads.pooled import FeatureNorm
from featcache.heads.standardize import Standardizer
from featcache.heads.training.stack import Stack

SIZES = {"grid": (2, 3), "num_layers": 2}
OPTIONS = {
    "ep": {"num_queries": 4},
    "cgp": {"num_prototypes": 5},
    "protobin": {"num_prototypes": 9},
    "protofloat": {"num_prototypes": 9},
}
D, C = 24, 3


def pair(name: str, seed: int = 0) -> tuple[Head, Head]:
    """A head with standardized channels, and the same head without."""
    torch.manual_seed(seed)
    own = build_head(name, D, C, **SIZES, standardize="channel", **OPTIONS.get(name, {}))
    plain = build_head(name, D, C, **SIZES, **OPTIONS.get(name, {}))
    plain.load_state_dict(
        {key: value for key, value in own.state_dict().items() if not key.startswith("standardizer")}
    )
    draw = torch.Generator().manual_seed(1)
    shape = own.standardizer.mean.shape
    own.standardizer.set(torch.randn(shape, generator=draw), 0.5 + torch.rand(shape, generator=draw))
    return own.eval(), plain.eval()


def inputs_of(name: str) -> Inputs:
    reads = HEADS[name].reads
    layers = (2,) if reads == "layers" else ()
    cls = torch.randn(4, *layers, D)
    if reads in ("cls", "mean"):
        return None, cls, None
    return torch.randn(4, *layers, 6, D), None if reads == "tokens" else cls, torch.rand(4, 6) < 0.8


def by_hand(own: Standardizer, vectors: Tensor | None, tokens: bool) -> Tensor | None:
    if vectors is None:
        return None
    mean, sd = own.mean, own.sd
    return (vectors - mean[..., None, :]) / sd[..., None, :] if tokens else (vectors - mean) / sd


@pytest.mark.parametrize("name", HEADS)
def test_a_head_sees_standardized_channels_alone_stacked_and_after_saving(name: str, tmp_path: Path) -> None:
    own, plain = pair(name)
    tokens, cls, valid = inputs_of(name)
    wanted = plain(by_hand(own.standardizer, tokens, True), by_hand(own.standardizer, cls, False), valid)
    torch.testing.assert_close(own(tokens, cls, valid), wanted)
    other, _ = pair(name, seed=5)
    stacked = Stack([own, other], torch.device("cpu")).logits((tokens, cls, valid), None)
    torch.testing.assert_close(stacked[0], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stacked[1], other(tokens, cls, valid), rtol=1e-4, atol=1e-5)
    save(own, tmp_path / "head")
    torch.testing.assert_close(load(tmp_path / "head")(tokens, cls, valid), wanted, rtol=1e-4, atol=1e-5)


def test_after_a_few_batches_the_norm_knows_the_features_and_later_moves_by_a_tenth() -> None:
    """torch's own statistics would still be nearly those of nothing: 0.9 ** 5 of them."""
    draw = torch.Generator().manual_seed(0)
    batches = [20.0 + 2.0 * torch.randn(64, 8, generator=draw) for _ in range(40)]
    norm, reference = FeatureNorm(8).train(), torch.nn.BatchNorm1d(8, affine=False).train()
    for batch in batches[:5]:
        torch.testing.assert_close(norm(batch), reference(batch))
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches[:5]]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches[:5]]).mean(0))
    for batch in batches[5:10]:
        norm(batch)
    reference.running_mean, reference.running_var = norm.running_mean.clone(), norm.running_var.clone()
    for batch in batches[10:]:
        norm(batch), reference(batch)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.eval()(batches[0]), reference.eval()(batches[0]))


@pytest.mark.parametrize("name", [name for name in HEADS if name != "proto"])
def test_a_batch_norm_is_folded_into_the_weights_when_a_head_is_saved(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = build_head(name, D, C, **SIZES, norm="batch", **OPTIONS.get(name, {}))
    for _ in range(3):  # running statistics that are neither those of a new head nor of the last batch
        head.train()(*inputs_of(name))
    save(head.eval(), tmp_path / "head")
    loaded, inputs = load(tmp_path / "head"), inputs_of(name)
    torch.testing.assert_close(loaded(*inputs), head(*inputs), rtol=1e-4, atol=1e-5)
    kept = any("running" in key for key in loaded.state_dict())
    assert kept == (name in ("linpre", "conv"))  # these norm every token, and do more before their logits


@pytest.mark.parametrize("reads", ["tokens", "mean", "cls", "layers"])
def test_moments_are_those_of_the_tokens_that_are_audio(reads: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    maps = {layer: draw.normal(300, 2, (150, 6, 4)).astype(np.float32) for layer in (1, 2)}
    cls, valid = draw.normal(-5, 3, (150, 4)).astype(np.float32), draw.integers(1, 4, 150)
    layout = CacheLayout(
        fingerprint={"encoder": "fake"}, layers=(1, 2), num_tokens=6, dim=4, grid=(2, 3), has_cls=True,
        dtype="float32",
    )  # fmt: skip
    with CacheWriter.create_or_open(tmp_path / "c.zarr", layout) as writer:
        for row in range(150):
            writer.add(
                str(row), row.to_bytes(16, "big"),
                {layer: torch.from_numpy(own[row]) for layer, own in maps.items()},
                {layer: torch.from_numpy(cls[row] + layer) for layer in maps},
                valid=int(2 * valid[row]),
            )  # fmt: skip
    cache, rows = TokenCache.open(tmp_path / "c.zarr"), np.arange(149, 9, -1)
    source = Source(cache, needs_of(reads, (1, 2), 2, True), rows, torch.device("cpu"))
    mean, sd = channel_moments(source, rows, reads, 2)
    audio = np.arange(6) < 2 * valid[rows, None]
    token_means = np.stack([maps[2][row, : 2 * valid[row]].mean(axis=0) for row in rows])
    wanted = {
        "tokens": maps[2][rows][audio],
        "mean": token_means,
        "cls": cls[rows] + 2,
        "layers": np.stack([maps[layer][rows][audio] for layer in (1, 2)], axis=1),
    }[reads]
    np.testing.assert_allclose(mean, wanted.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sd, wanted.std(axis=0), rtol=1e-3)


def test_a_channel_that_never_varies_is_only_centred() -> None:
    own = Standardizer(2)
    own.set(torch.tensor([1000.0, 0.0]), torch.tensor([1e-5, 1e-5]))
    assert torch.equal(own.sd, torch.tensor([1.0, 1e-5]))  # the second is small, and varies


@pytest.mark.slow
def test_a_channel_hundreds_of_times_larger_does_not_decide(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    cache, _ = make_tokens(clips=160, single=True, dtype="float32")
    loud, _ = make_tokens(clips=160, single=True, dtype="float32", name="loud", outlier=300.0)
    found = [
        [
            result.value
            for result in probe(
                path, path.with_suffix(".csv"), heads=["mhca", "protobin"], seeds=1, epochs=40, batch_size=16,
                solved=False, out=tmp_path / path.stem,
            )
        ]
        for path in (cache, loud)
    ]  # fmt: skip
    for alone, beside in zip(*found, strict=True):
        assert beside > alone - 0.05 > 0.8, found
