"""Evidence lies on the tokens that won, and says what those tokens gave."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from featcache.cache import TokenCache
from featcache.heads.explain.explainer import Explainer
from featcache.heads.explain.localise import evidence, points_into, usual_scores
from featcache.heads.probing.probe import probe
from featcache.heads.prototypical import ProtoBin
from featcache.manifest import read_manifest
from featcache.manifest.events import Event, events_file, read_events, write_events


@pytest.fixture
def cache(make_tokens: Callable[..., tuple[Path, Path]]) -> TokenCache:
    return TokenCache.open(make_tokens(24, dtype="float32")[0])


@pytest.fixture
def head() -> ProtoBin:
    torch.manual_seed(0)
    return ProtoBin(dim=16, num_classes=3, per_class=4).eval()


def test_evidence_is_what_a_plain_loop_puts_on_the_winning_tokens(cache: TokenCache, head: ProtoBin) -> None:
    usual = usual_scores(head, cache, range(len(cache)))
    F, _ = cache.grid
    for row in (0, 1, 5):
        tokens = torch.from_numpy(cache[row].copy())[: cache.num_valid[row]]
        wanted = torch.zeros(3, *cache.grid)
        for p, prototype in enumerate(torch.where(head.prototypes >= 0, 1.0, -1.0)):
            cosine = torch.cosine_similarity(tokens, prototype, dim=-1)
            best = int(cosine.argmax())
            more = max(0.0, float(cosine[best] - usual[p]))
            wanted[:, best % F, best // F] += head.classify.weight[:, p].detach() * more
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(evidence(head, cache, row, usual), wanted, atol=1e-5, rtol=1e-4)


def test_without_a_usual_score_evidence_sums_to_the_logit(cache: TokenCache, head: ProtoBin) -> None:
    # So low a usual score that every prototype matches better than usual.
    low = torch.full((12,), -1.0)
    valid = torch.arange(12)[None] < int(cache.num_valid[3])
    logits = head(torch.from_numpy(cache[3].copy())[None], None, valid)[0]
    at_usual = head.classify(low)
    torch.testing.assert_close(evidence(head, cache, 3, low).sum(dim=(1, 2)), (logits - at_usual).detach())


def test_usual_scores_are_the_mean_over_all_blocks(
    cache: TokenCache, head: ProtoBin, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = usual_scores(head, cache, range(10))
    monkeypatch.setattr("featcache.heads.explain.localise.BLOCK", 3)
    torch.testing.assert_close(usual_scores(head, cache, range(10)), whole)


def test_a_patch_that_overlaps_the_event_counts() -> None:
    found = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])  # column 2: 2 s to 3 s
    assert points_into(found, 2.9, 4.0, 1.0) == (True, 0.5)
    assert points_into(found, 3.0, 4.0, 1.0) == (False, 0.25)


def test_events_beside_a_manifest_are_what_a_trained_head_is_held_against(
    make_tokens: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    path, manifest = make_tokens(48)
    clips = read_manifest(manifest).clips
    test = [clip for clip in clips if clip.split == "test"]
    events = [
        Event(id=clip.id, start=number, end=number + 2.0, label=label)
        for clip in test[1:]  # the first has none
        for number, label in enumerate((*clip.labels, "a class that no head knows"))
    ]
    write_events(events_file(manifest), events)
    (result,) = probe(
        path, manifest, heads=["protobin"], out=tmp_path / "out", epochs=1, seeds=1, solved=False
    )
    train = [clip.id for clip in clips if clip.split == "train"]
    explainer = Explainer(result, TokenCache.open(path), read_events(events_file(manifest)), train, 1.0)
    assert explainer.pointed(test[0].id) == []
    wanted = []
    for event in events:
        if event.label in explainer.classes:
            own = explainer.maps(event.id)[explainer.classes.index(event.label)]  # (F, T), a second a column
            columns = own.amax(dim=0)
            inside = torch.zeros(6, dtype=torch.bool)
            inside[int(event.start) : int(event.end)] = True
            wanted.append((float(inside[columns.argmax()]), float(inside.float().mean())))
    assert len(wanted) == sum(len(clip.labels) for clip in test[1:]) > 0
    assert explainer.pointing() == pytest.approx(tuple(torch.tensor(wanted).double().mean(dim=0).tolist()))
