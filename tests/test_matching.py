"""Every form of the match against the plain one: values, winners, gradients."""

import sys

import pytest
import torch
from torch.nn import functional as nn_f

from featcache.errors import InputError
from featcache.heads.matching import blocks, match, match_reference, native
from featcache.heads.matching.match import _match, engine
from featcache.machine.facts import instructions

ENGINES = [blocks, native]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
# Sizes at and beside every block of the compiled code: 32 tokens, 6 x 5 dimensions, 16 prototypes.
SIZES = [(2, 1, 1, 1), (3, 7, 5, 2), (2, 31, 30, 15), (2, 32, 31, 16), (1, 33, 60, 17), (2, 70, 96, 2100)]


def names(value):
    return value.__name__.rpartition(".")[-1] if hasattr(value, "__name__") else str(value)


def slack(engine, binary, dim):
    """How much less similar than the best token a winner may be, as docs/matching.md has it."""
    if engine is blocks:
        return 1e-6
    return 1e-4 * dim**0.5 if binary else 1e-4


@pytest.fixture(autouse=True)
def engine_of_choice(request, monkeypatch):
    """Let a test that asks for an engine get it, through the public entry."""
    if "engine" in request.fixturenames:
        module = request.getfixturevalue("engine")
        if module is native and native.library() is None:
            pytest.skip("no C compiler, or no AVX2")
        monkeypatch.setenv("FEATCACHE_MATCH", names(module))


def clips(B, N, D, dtype, seed=0):
    """Tokens of very different lengths, and a mask that hides some, at least one of them not."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(B, N, D, generator=generator) * torch.rand(B, N, 1, generator=generator).mul(6).exp()
    valid = torch.rand(B, N, generator=generator) < 0.7
    valid[:, N // 2] = True
    if dtype == torch.int8:
        tokens = (tokens / tokens.abs().amax(dim=-1, keepdim=True) * 127).round()
    return tokens.to(dtype), valid


def some_prototypes(P, D, binary, dtype=torch.float32):
    latent = torch.randn(P, D, generator=torch.Generator().manual_seed(9), dtype=dtype) * 0.02
    return torch.where(latent >= 0, 1.0, -1.0).to(dtype) if binary else latent


def all_similarities(tokens, prototypes):
    return nn_f.normalize(tokens.double(), dim=-1) @ nn_f.normalize(prototypes.double(), dim=-1).T


@pytest.mark.skipif(native.library() is None, reason="no C compiler, or no AVX2")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@pytest.mark.parametrize("sizes", [*SIZES, (2, 40, 77, 48)])
def test_wider_instructions_change_no_bit(monkeypatch, dtype, sizes):
    if "avx512_vnni" not in instructions()["found"]:
        pytest.skip("this processor has no AVX-512 VNNI")
    B, N, D, P = sizes
    tokens, valid = clips(B, N, D, dtype)
    prototypes = some_prototypes(P, D, False)
    wide = native.search(tokens, prototypes, valid)
    monkeypatch.setattr(native, "PLAIN", True)
    for ours, plain in zip(wide, native.search(tokens, prototypes, valid), strict=True):
        assert torch.equal(ours, plain)


def test_reference_equals_a_loop():
    tokens, valid = clips(2, 5, 4, torch.float32)
    prototypes = some_prototypes(3, 4, binary=False)
    scores, index = match_reference(tokens, prototypes, valid)
    for b in range(2):
        for p in range(3):
            cosines = [
                (nn_f.cosine_similarity(tokens[b, n], prototypes[p], dim=0).item(), n)
                for n in range(5)
                if valid[b, n]
            ]
            assert scores[b, p].item() == pytest.approx(max(cosines)[0], abs=1e-6)
            assert index[b, p].item() == max(cosines)[1]


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_fast_forms_equal_the_reference(engine, binary, dtype, sizes):
    B, N, D, P = sizes
    tokens, valid = clips(B, N, D, dtype)
    prototypes = some_prototypes(P, D, binary)
    scores, index = match(tokens, prototypes, valid)
    similarity = all_similarities(tokens, prototypes)
    assert valid.gather(1, index).all()
    # The score is that of the winner, in full precision.
    won = similarity.gather(1, index.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(scores.double(), won, rtol=0, atol=1e-6)
    # The winner is the best, but for tokens that the number format cannot tell apart.
    best = similarity.masked_fill(~valid.unsqueeze(-1), -2).amax(dim=1)
    assert (best - won).max() <= slack(engine, binary, D)


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8], ids=str)
def test_gradient_of_prototypes_equals_that_of_autograd(engine, binary, dtype):
    tokens, valid = clips(3, 40, 37, dtype)
    prototypes = some_prototypes(21, 37, binary).requires_grad_()
    weight = torch.randn(3, 21, generator=torch.Generator().manual_seed(3))
    scores, index = match(tokens, prototypes, valid)
    (gradient,) = torch.autograd.grad((scores * weight).sum(), prototypes)
    exact = prototypes.detach().double().requires_grad_()
    won = all_similarities(tokens, exact).gather(1, index.unsqueeze(1)).squeeze(1)
    (expected,) = torch.autograd.grad((won * weight).sum(), exact)
    torch.testing.assert_close(
        gradient.double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item()
    )


@pytest.mark.parametrize("engine", ENGINES, ids=names)
def test_gradient_of_tokens_equals_that_of_autograd(engine):
    tokens, valid = clips(2, 20, 16, torch.float32)
    tokens.requires_grad_()
    prototypes = some_prototypes(50, 16, binary=False).requires_grad_()
    asked = (tokens, prototypes)
    fast = torch.autograd.grad(match(tokens, prototypes, valid)[0].square().sum(), asked)
    plain = torch.autograd.grad(match_reference(tokens, prototypes, valid)[0].square().sum(), asked)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_gradients_equal_finite_differences():
    tokens, valid = clips(2, 6, 5, torch.float64)
    prototypes = some_prototypes(7, 5, binary=False, dtype=torch.float64)
    asked = (tokens.requires_grad_(), prototypes.requires_grad_())
    assert torch.autograd.gradcheck(lambda *given: match(*given, valid)[0], asked)


def test_tokens_get_no_gradient_unless_they_ask():
    tokens, _ = clips(2, 6, 5, torch.float32)
    prototypes = some_prototypes(7, 5, binary=True).requires_grad_()
    match(tokens, prototypes)[0].sum().backward()
    assert tokens.grad is None
    assert prototypes.grad is not None


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
def test_clear_winners_are_found_exactly(engine, binary):
    generator = torch.Generator().manual_seed(5)
    prototypes = some_prototypes(40, 64, binary)
    tokens = torch.randn(3, 90, 64, generator=generator)
    place = torch.stack([torch.randperm(90, generator=generator)[:40] for _ in range(3)])
    for b in range(3):  # a token that is the prototype itself, of some other length
        tokens[b, place[b]] = prototypes * torch.rand(40, 1, generator=generator)
    scores, index = match(tokens, prototypes)
    assert torch.equal(index, place)
    torch.testing.assert_close(scores, torch.ones(3, 40))


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
def test_hidden_tokens_do_not_win_where_all_others_point_away(engine, binary):
    prototypes = some_prototypes(1, 8, binary)
    tokens = -prototypes.repeat(1, 5, 1) + torch.eye(8)[:5] * prototypes * torch.arange(5).div(5)[:, None]
    tokens[0, 0] = tokens[0, 4] = 0.0  # padding is zeros: a cosine of 0, above all others
    valid = torch.tensor([[False, True, True, True, False]])
    scores, index = match(tokens, prototypes, valid)
    best, place = all_similarities(tokens, prototypes)[0, 1:4, 0].max(dim=0)
    assert best < -0.5
    assert index.item() == 1 + place.item()
    assert scores.item() == pytest.approx(best.item(), abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
def test_a_clip_without_valid_tokens_scores_its_first_token(engine, binary):
    tokens, valid = clips(2, 9, 8, torch.float32)
    valid[0] = False
    prototypes = some_prototypes(5, 8, binary)
    scores, index = match(tokens, prototypes, valid)
    assert (index[0] == 0).all()
    torch.testing.assert_close(scores[0].double(), all_similarities(tokens, prototypes)[0, 0])


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int8], ids=str)
def test_zero_tokens_score_zero(engine, dtype):
    scores, _ = match(torch.zeros(1, 4, 8, dtype=dtype), some_prototypes(3, 8, binary=True))
    assert scores.tolist() == [[0.0] * 3]


@pytest.mark.parametrize("engine", ENGINES, ids=names)
def test_zero_prototypes_score_zero_and_their_gradient_is_finite(engine):
    tokens, _ = clips(2, 9, 8, torch.float32)
    prototypes = torch.zeros(3, 8, requires_grad=True)
    scores, _ = match(tokens, prototypes)
    assert scores.abs().max() == 0
    scores.sum().backward()
    assert prototypes.grad.isfinite().all()


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "float"])
def test_extreme_tokens_do_not_overflow(engine, binary):
    """All of one sign and size: the largest sum that a token of its length can have."""
    prototypes = some_prototypes(20, 768, binary)
    tokens = torch.sign(prototypes)[None] * torch.tensor([1e-6, 1e-3, 1.0, 3e4, 1e9]).repeat(4)[:, None]
    scores, index = match(tokens, prototypes)
    assert torch.equal(index[0], torch.arange(20))
    torch.testing.assert_close(scores, all_similarities(tokens, prototypes).amax(dim=1).float())


@pytest.mark.parametrize("engine", ENGINES, ids=names)
def test_int8_tokens_may_hold_the_lowest_number(engine):
    tokens = torch.full((1, 3, 768), -128, dtype=torch.int8)
    scores, _ = match(tokens, torch.cat([torch.ones(1, 768), -torch.ones(1, 768)]))
    torch.testing.assert_close(scores, torch.tensor([[-1.0, 1.0]]))


def test_sliced_and_transposed_inputs_are_read_where_they_lie():
    tokens, valid = clips(4, 12, 16, torch.float16)
    prototypes = some_prototypes(6, 16, binary=True)
    expected, _ = match(tokens[::2].clone(), prototypes.clone(), valid[::2].clone())
    turned = prototypes.T.contiguous().T
    torch.testing.assert_close(match(tokens[::2], turned, valid[::2])[0], expected)


def test_prototypes_of_one_size_are_recognised():
    if native.library() is None:
        pytest.skip("no C compiler, or no AVX2")
    signs, _ = native.pack_signs(torch.tensor([[0.5, -0.5], [-0.5, -0.5]]))
    assert signs.tolist() == [[1, -1], [-1, -1]]
    assert native.pack_signs(torch.tensor([[0.5, -0.5], [-0.5, -0.6]])) is None
    assert native.pack_signs(torch.zeros(2, 2)) is None


def test_threads_share_the_work_and_agree():
    tokens, valid = clips(5, 40, 33, torch.float16)
    prototypes = some_prototypes(19, 33, binary=True).requires_grad_()
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            scores, index = match(tokens, prototypes, valid)
            (gradient,) = torch.autograd.grad(scores.sum(), prototypes)
            results.append((scores.detach(), index, gradient))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_the_plain_form_is_taken_where_asked(monkeypatch):
    monkeypatch.setenv("FEATCACHE_MATCH", "reference")
    monkeypatch.setattr(
        sys.modules["featcache.heads.matching.match"], "_match", None
    )  # the door to every fast form
    tokens, valid = clips(2, 5, 4, torch.float16)
    prototypes = some_prototypes(3, 4, binary=True)
    assert torch.equal(match(tokens, prototypes, valid)[0], match_reference(tokens, prototypes, valid)[0])


def test_engine_is_chosen_by_dtype_and_device(monkeypatch):
    monkeypatch.delenv("FEATCACHE_MATCH", raising=False)
    float16, prototypes = torch.zeros(1, 1, 8, dtype=torch.float16), torch.ones(1, 8)
    fast = native if native.library() is not None else blocks
    for own in (prototypes, torch.randn(1, 8)):
        assert engine(float16, own) is fast
        assert engine(float16.double(), own.double()) is blocks
        assert engine(float16.to("meta"), own) is blocks


def test_no_instruction_of_the_processor_beyond_avx2_decides_the_engine(monkeypatch):
    tokens, prototypes = torch.zeros(1, 1, 8, dtype=torch.float16), torch.randn(2, 8)
    here = engine(tokens, prototypes)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_vnni_supported"):
        for answer in (True, False):
            monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
            assert engine(tokens, prototypes) is here


def test_a_form_that_is_unknown_or_not_here_is_an_error(monkeypatch):
    tokens, prototypes = torch.zeros(1, 1, 8), torch.ones(1, 8)
    monkeypatch.setenv("FEATCACHE_MATCH", "nativ")
    with pytest.raises(InputError, match="did you mean 'native'"):
        match(tokens, prototypes)
    monkeypatch.setenv("FEATCACHE_MATCH", "native")
    with pytest.raises(
        InputError, match=r"native cannot match torch.float64 tokens on cpu here .*; use blocks"
    ):
        match(tokens.double(), prototypes.double())


@pytest.mark.parametrize(
    ("tokens", "prototypes", "valid", "found"),
    [
        ((2, 5, 1024), (3, 768), None, r"found \(2, 5, 1024\) and \(3, 768\)"),
        ((5, 8), (3, 8), None, r"found \(5, 8\)"),
        ((2, 5, 8), (3, 8), torch.tensor([5, 3]), r"bool mask \(2, 5\), found \(2,\) of torch.int64"),
    ],
)
def test_shapes_that_do_not_fit_never_reach_compiled_code(tokens, prototypes, valid, found):
    with pytest.raises(InputError, match=found):
        match(torch.zeros(tokens), torch.zeros(prototypes), valid)


@pytest.mark.parametrize("engine", ENGINES, ids=names)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_broken_prototype_leaves_its_neighbours_alone(engine, broken):
    tokens, valid = clips(3, 33, 24, torch.float16)
    prototypes = some_prototypes(20, 24, binary=False)
    expected, index = match(tokens, prototypes, valid)
    prototypes[7, 3] = broken
    scores, found = match(tokens, prototypes, valid)
    others = torch.arange(20) != 7
    assert torch.equal(scores[:, others], expected[:, others])
    assert torch.equal(found[:, others], index[:, others])
    assert scores[:, 7].isnan().all()


def test_match_compiles_whole():
    tokens, valid = clips(2, 9, 8, torch.float32)
    prototypes = some_prototypes(5, 8, binary=False).requires_grad_()
    compiled = torch.compile(lambda *given: match(*given)[0] * 2, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad((match(tokens, prototypes, valid)[0] * 2).sum(), prototypes)
    got = torch.autograd.grad(compiled(tokens, prototypes, valid).sum(), prototypes)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_custom_operation_is_registered_soundly(requires_grad):
    tokens, valid = clips(2, 5, 4, torch.float32)
    prototypes = some_prototypes(3, 4, binary=False).requires_grad_(requires_grad)
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(_match, (tokens, prototypes, valid), test_utils=tests)


def test_without_compiled_code_the_match_runs_in_torch(monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    assert engine(torch.zeros(1, 1, 8), torch.ones(1, 8)) is blocks
