"""Scores of frames and tokens agree with those of the clip."""

import pytest
import torch
from torch.nn import functional as nn_f

from featcache.heads import build_head

B, F, T, D, C = 2, 3, 4, 10, 3
GRID = (F, T)
TOKENS = torch.randn(B, T * F, D, generator=torch.Generator().manual_seed(0))
CLS = torch.randn(B, D, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["protobin", "protofloat", "proto"])
def head(request):
    torch.manual_seed(0)
    return build_head(request.param, D, C, per_class=2).eval()


def clip_scores(head):
    tokens = head.tokens_for_match(TOKENS, CLS, None)
    unit = nn_f.normalize(tokens, dim=-1)
    return (unit @ nn_f.normalize(head.prototypes_for_match(), dim=-1).T).amax(dim=1)


def test_maximum_over_time_of_frame_scores_is_the_clip_score(head):
    frames = head.scores_over_time(TOKENS, GRID, CLS)
    assert frames.shape == (B, T, 2 * C)
    torch.testing.assert_close(frames.amax(dim=1), clip_scores(head))


def test_a_frame_is_the_maximum_over_its_frequencies(head):
    maps = head.activation_map(TOKENS, GRID, CLS)
    assert maps.shape == (B, 2 * C, F, T)
    torch.testing.assert_close(maps.amax(dim=2).transpose(1, 2), head.scores_over_time(TOKENS, GRID, CLS))


def test_activation_map_puts_a_token_at_its_time_and_frequency(head):
    tokens = head.tokens_for_match(TOKENS, CLS, None)
    maps = head.activation_map(TOKENS, GRID, CLS)
    similarity = nn_f.cosine_similarity(tokens[1, 2 * F + 1], head.prototypes_for_match()[5], dim=0)
    torch.testing.assert_close(maps[1, 5, 1, 2], similarity)


def test_logits_over_time_are_those_of_one_frame_clips(head):
    frames = head.logits_over_time(TOKENS, GRID, CLS)
    assert frames.shape == (B, T, C)
    third = TOKENS[:, 2 * F : 3 * F]
    torch.testing.assert_close(frames[:, 2], head(third, CLS, None))


def test_evidence_is_the_logit_of_a_token_alone_less_that_of_no_likeness(head):
    evidence = head.evidence_map(TOKENS, GRID, label=1, cls=CLS)
    assert evidence.shape == (B, F, T)
    bias = head.logits_from_scores(torch.zeros(2 * C))[1]
    alone = head(TOKENS[:, 2 * F + 1 : 2 * F + 2], CLS, None)[:, 1]
    torch.testing.assert_close(evidence[:, 1, 2], alone - bias)


def test_evidence_of_protobin_is_weight_times_cosine():
    head = build_head("protobin", D, C, per_class=2).eval()
    maps = head.activation_map(TOKENS, GRID)
    expected = torch.einsum("p,bpft->bft", head.classify.weight[2], maps)
    torch.testing.assert_close(head.evidence_map(TOKENS, GRID, label=2), expected)
