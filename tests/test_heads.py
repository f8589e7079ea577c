"""What every head of the table promises, and each head against its formula written out."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nn_f

from featcache.errors import InputError
from featcache.heads import HEADS, Head, HeadSpec, build_head, head_spec
from featcache.heads.attentive import Attentive
from featcache.heads.binarize import binarize
from featcache.heads.gated import Extremes, extremes
from featcache.heads.training.group import Group
from featcache.heads.training.trial import Training, Trial

B, F, T, D, C, LAYERS = 3, 2, 5, 12, 4, 3
N = F * T
OPTIONS = {"ep": {"num_queries": 4}, "cgp": {"num_prototypes": 7}}

ALL = list(HEADS)
OF_TOKENS = [name for name in HEADS if HEADS[name].reads not in ("cls", "mean")]


def make(name: str, **options) -> Head:
    torch.manual_seed(0)
    spec = {"grid": (F, T), "num_layers": LAYERS} | OPTIONS.get(name, {}) | options
    return build_head(name, D, C, **spec).eval()


def inputs_for(spec: HeadSpec, dtype=torch.float32, num_valid=None):
    """Tokens, cls and valid as the engine passes them to a head that reads this."""
    generator = torch.Generator().manual_seed(1)
    layers = (LAYERS,) if spec.reads == "layers" else ()
    tokens = torch.randn(B, *layers, N, D, generator=generator, dtype=dtype)
    cls = torch.randn(B, *layers, D, generator=generator, dtype=dtype)
    valid = torch.ones(B, N, dtype=torch.bool)
    if num_valid is not None:
        valid[:, num_valid:] = False
    if spec.reads in ("cls", "mean"):
        return None, cls, None
    return tokens, None if spec.reads == "tokens" else cls, valid


@pytest.mark.parametrize("name", ALL)
def test_logits_have_one_row_per_clip_and_one_column_per_class(name):
    assert make(name)(*inputs_for(HEADS[name])).shape == (B, C)


@pytest.mark.parametrize("name", ALL)
def test_a_clip_scores_the_same_alone_and_in_a_batch(name):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name], num_valid=6)
    together = head(tokens, cls, valid)
    alone = head(*(None if part is None else part[1:2] for part in (tokens, cls, valid)))
    torch.testing.assert_close(together[1:2], alone)


@pytest.mark.parametrize("name", [name for name in OF_TOKENS if not HEADS[name].build.needs_grid])
def test_order_of_tokens_does_not_matter(name):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name], num_valid=7)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    shuffled = tokens.index_select(-2, order)
    torch.testing.assert_close(head(tokens, cls, valid), head(shuffled, cls, valid[:, order]))


@pytest.mark.parametrize("name", [name for name in OF_TOKENS if HEADS[name].build.needs_grid])
def test_order_of_tokens_matters_to_heads_of_the_grid(name):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name])
    assert not torch.allclose(head(tokens, cls, valid), head(tokens.flip(-2), cls, valid))


@pytest.mark.parametrize("name", OF_TOKENS)
def test_padding_tokens_change_nothing(name):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name], num_valid=6)
    loud = tokens.clone()
    loud[..., 6:, :] = 1000 * torch.randn(N - 6, D)
    torch.testing.assert_close(head(tokens, cls, valid), head(loud, cls, valid))


@pytest.mark.parametrize("name", OF_TOKENS)
def test_padding_tokens_count_where_asked(name):
    head = make(name, use_padding=True)
    tokens, cls, valid = inputs_for(HEADS[name], num_valid=6)
    everything = torch.ones_like(valid)
    torch.testing.assert_close(head(tokens, cls, valid), head(tokens, cls, everything))
    assert not torch.allclose(head(tokens, cls, valid), make(name)(tokens, cls, valid))


@pytest.mark.parametrize("name", OF_TOKENS)
def test_a_clip_of_padding_alone_gives_finite_logits_and_gradients(name):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name], num_valid=6)
    tokens[0], valid[0] = 0.0, False
    logits = head(tokens, cls, valid)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize("name", ALL)
def test_valid_may_be_left_out(name):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name])
    torch.testing.assert_close(head(tokens, cls, None), head(tokens, cls, valid))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tokens_may_come_in_half_precision(name, dtype):
    head = make(name)
    tokens, cls, valid = inputs_for(HEADS[name])
    tokens = None if tokens is None else tokens.to(dtype)
    logits = head(tokens, cls, valid)
    assert logits.dtype == torch.float32
    full = head(None if tokens is None else tokens.float(), cls, valid)
    torch.testing.assert_close(logits, full, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_gradients_equal_finite_differences(name):
    few = {"cgp": {"num_prototypes": 2}}.get(name, {"per_class": 1} if "proto" in name else {})
    head = make(name, **few).double()
    tokens, cls, valid = inputs_for(HEADS[name], dtype=torch.float64, num_valid=7)
    names, values = zip(*head.named_parameters(), strict=True)
    moved = [value.detach().clone().requires_grad_() for value in values]
    asked = [part.requires_grad_() for part in (tokens, cls) if part is not None]

    def run(*arguments: Tensor) -> Tensor:
        own = dict(zip(names, arguments[: len(names)], strict=True))
        if name == "protobin":  # a step has no slope: the straight-through one is tested by itself
            own["prototypes"] = values[names.index("prototypes")]
        return torch.func.functional_call(head, own, (tokens, cls, valid))

    assert torch.autograd.gradcheck(run, (*moved, *asked), fast_mode=True)  # along random directions


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_learns(name):
    head = make(name).train()
    head(*inputs_for(HEADS[name])).square().sum().backward()
    for label, parameter in head.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().max() > 0, label


@pytest.mark.parametrize("name", ALL)
def test_the_formula_of_the_parameter_count_counts(name):
    sizes = {"D": D, "H": D // 2, "C": C, "F": F, "M": 4, "layers": LAYERS}
    sizes["P"] = 7 if name == "cgp" else 20 * C
    count = sum(parameter.numel() for parameter in make(name).parameters())
    assert count == eval(HEADS[name].parameters, {}, sizes)


@pytest.mark.parametrize(
    ("name", "classes", "options", "count"),
    [
        ("linear", 10, {}, 7_690),
        ("mlp", 10, {}, 299_146),
        ("mhca", 10, {}, 1_188_106),
        ("ep", 10, {}, 622_090),
        ("simpool", 10, {}, 1_188_874),
        ("abmilp", 10, {}, 599_051),
        ("proto", 10, {}, 153_600 + 200 + 10),
        ("protobin", 10, {}, 155_610),
        ("protobin", 527, {"num_prototypes": 10_000}, 12_950_527),
        ("cgp", 527, {"num_layers": 12}, 23_490_539),
    ],
)
def test_parameter_counts_are_those_of_the_papers(name, classes, options, count):
    with torch.device("meta"):
        head = build_head(name, 768, classes, **options)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


@pytest.mark.parametrize(("classes", "prototypes"), [(10, 200), (500, 10_000), (527, 5_270)])
def test_prototypes_per_class_are_twenty_and_ten_above_500_classes(classes, prototypes):
    with torch.device("meta"):
        assert build_head("protobin", 8, classes).prototypes.shape == (prototypes, 8)


@pytest.mark.parametrize("name", ALL)
def test_dropout_is_off_unless_asked_and_then_only_in_training(name):
    inputs = inputs_for(HEADS[name])
    torch.testing.assert_close(make(name).train()(*inputs), make(name)(*inputs))
    head = make(name, dropout=0.5)
    torch.testing.assert_close(head(*inputs), make(name)(*inputs))
    assert not torch.allclose(head.train()(*inputs), head.eval()(*inputs))


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_is_in_one_group_and_prototypes_and_biases_do_not_decay(name):
    head = make(name)
    groups = head.param_groups(lr=0.1, weight_decay=0.01)
    torch.optim.AdamW(groups)
    decay = {id(value): group["weight_decay"] for group in groups for value in group["params"]}
    assert len(decay) == len(list(head.parameters()))
    for label, parameter in head.named_parameters():
        spared = "prototypes" in label or "bias" in label or label in ("query", "gates")
        assert decay[id(parameter)] == (0.0 if spared or parameter.ndim == 1 else 0.01), label


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_heads_compile(name):
    torch.compiler.reset()  # the heads share a forward, and one function compiles for eight classes at most
    head = make(name)
    inputs = inputs_for(HEADS[name], num_valid=7)
    # What is traced is the same; the dearer one also sees what the match tells of its gradient.
    backend = "aot_eager" if HEADS[name].family in ("prototypes", "layers") else "eager"
    compiled = torch.compile(head, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), head(*inputs))
    compiled(*inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_binarised_zero_is_plus_one_and_the_gradient_passes_unchanged():
    latent = torch.tensor([-3.0, -0.0, 0.0, 5.0], requires_grad=True)
    code = binarize(latent)
    assert code.tolist() == [-1.0, 1.0, 1.0, 1.0]
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.autograd.grad((code * weight).sum(), latent)[0].tolist() == weight.tolist()


def test_clipped_gradient_stops_outside_one():
    latent = torch.tensor([-3.0, 0.5, 5.0], requires_grad=True)
    assert torch.autograd.grad(binarize(latent, clip=True).sum(), latent)[0].tolist() == [0.0, 1.0, 0.0]


def test_protobin_starts_small_and_its_gradient_is_that_of_the_cosine_of_signs(monkeypatch):
    monkeypatch.setenv("FEATCACHE_MATCH", "reference")  # the very winners of amax, near ties too
    torch.manual_seed(0)
    head = build_head("protobin", 256, 50)
    assert head.prototypes.std().item() == pytest.approx(0.02, rel=0.02)
    tokens = torch.randn(2, 6, 256)
    head(tokens, None, None)[0, 0].backward()
    signs = torch.where(head.prototypes >= 0, 1.0, -1.0).requires_grad_()
    similarity = nn_f.normalize(tokens, dim=-1) @ nn_f.normalize(signs, dim=-1).T
    (head.classify.weight[0] @ similarity.amax(dim=1)[0]).backward()
    torch.testing.assert_close(head.prototypes.grad, signs.grad, rtol=1e-4, atol=1e-7)


def test_scale_of_a_token_does_not_matter_to_prototypes():
    head = make("protobin")
    tokens, _, valid = inputs_for(HEADS["protobin"])
    torch.testing.assert_close(head(tokens, None, valid), head(tokens * 7, None, valid))


def test_linear_reads_cls_and_nothing_else():
    head = make("linear")
    cls = torch.randn(B, D)
    torch.testing.assert_close(head(None, cls, None), cls @ head.classify.weight.T + head.classify.bias)


def test_attention_equals_keys_and_values_written_out():
    head = make("mhca")
    tokens, _, valid = inputs_for(HEADS["mhca"], num_valid=7)
    key, value = head.key(tokens), head.value(tokens)
    pooled = torch.zeros(B, D)
    for b in range(B):
        for h in range(12):
            part = slice(h * D // 12, (h + 1) * D // 12)
            logits = key[b, :7, part] @ head.query[0, part] / math.sqrt(D // 12)
            pooled[b, part] = logits.softmax(0) @ value[b, :7, part]
    torch.testing.assert_close(head(tokens, None, valid), head.classify(pooled))


def test_attention_with_a_zero_query_is_the_mean_of_the_values():
    head = make("mhca")
    torch.nn.init.zeros_(head.query)
    tokens, _, valid = inputs_for(HEADS["mhca"], num_valid=7)
    torch.testing.assert_close(
        head(tokens, None, valid), head.classify(head.value(tokens[:, :7].mean(dim=1)))
    )


def test_efficient_probing_equals_slices_written_out():
    head = make("ep")
    tokens, _, valid = inputs_for(HEADS["ep"], num_valid=7)
    value = head.value(tokens)
    pooled = torch.zeros(B, D)
    for b in range(B):
        for m in range(4):
            part = slice(m * D // 4, (m + 1) * D // 4)
            weights = (tokens[b, :7] @ head.query[m] / math.sqrt(D)).softmax(0)
            pooled[b, part] = weights @ value[b, :7, part]
    torch.testing.assert_close(head(tokens, None, valid), head.classify(pooled))


def test_simpool_equals_queries_and_keys_written_out():
    head = make("simpool")
    tokens, _, valid = inputs_for(HEADS["simpool"], num_valid=7)
    normed = head.norm(tokens[:, :7])
    query, key = head.query(tokens[:, :7].mean(dim=1)), head.key(normed)
    weights = (torch.einsum("bd,bnd->bn", query, key) / math.sqrt(D)).softmax(-1)
    pooled = torch.einsum("bn,bnd->bd", weights, normed)
    torch.testing.assert_close(head(tokens, None, valid), head.classify(pooled))


def test_abmilp_equals_its_formula():
    head = make("abmilp")
    tokens, _, valid = inputs_for(HEADS["abmilp"], num_valid=7)
    heard = tokens[:, :7]
    weights = head.weigh(torch.tanh(head.hidden(heard))).softmax(dim=1)
    torch.testing.assert_close(head(tokens, None, valid), head.classify((weights * heard).sum(dim=1)))


def test_proto_reads_only_its_own_class_and_only_positively():
    head = make("proto")
    with torch.no_grad():
        head.weight.copy_(torch.randn_like(head.weight))
    tokens, cls, valid = inputs_for(HEADS["proto"], num_valid=7)
    expected = torch.full((B, C), -2.0)
    for b in range(B):
        for c in range(C):
            for j in range(20):
                prototype = head.prototypes[c * 20 + j]
                best = nn_f.cosine_similarity(tokens[b, :7] - cls[b], prototype.unsqueeze(0)).max()
                expected[b, c] += head.weight[c, j].relu() * best.relu()
    torch.testing.assert_close(head(tokens, cls, valid), expected)


def test_proto_without_cls_centres_on_the_mean_of_the_valid_tokens():
    head = make("proto")
    tokens, _, valid = inputs_for(HEADS["proto"], num_valid=7)
    torch.testing.assert_close(head(tokens, None, valid), head(tokens, tokens[:, :7].mean(dim=1), valid))


def test_penalty_of_proto_is_zero_for_orthogonal_prototypes_and_grows_with_their_likeness():
    head = build_head("proto", 8, 2, per_class=4)
    with torch.no_grad():
        head.prototypes.copy_(torch.eye(8) * 3)
        assert head.penalty({"prototypes": head.prototypes}).item() == pytest.approx(0.0, abs=1e-6)
        head.prototypes.copy_(torch.ones(8, 8))
    # Each class: 4 x 4 of ones less the identity: 12 ones in each, 24 in all, over 32 entries.
    assert head.penalty({"prototypes": head.prototypes}).item() == pytest.approx(math.sqrt(24) / 32, rel=1e-5)


def test_penalty_of_proto_is_part_of_what_it_trains_on():
    apart = {}
    for factor in (0.0, 1.0):
        heads = [make("proto", per_class=3, orthogonality=factor) for _ in range(2)]
        trials = [
            Trial(head="proto", task=0, layer=1, lr=0.01, weight_decay=0.0, loss="asymmetric", seed=seed)
            for seed in range(2)
        ]
        group = Group(range(2), trials, heads, Training(epochs=30), 4, torch.device("cpu"))
        for _ in range(120):
            group.step(inputs_for(HEADS["proto"]), torch.eye(C)[:B])
        fresh = make("proto", per_class=3, orthogonality=1.0)
        apart[factor] = [
            fresh.penalty({"prototypes": own}).item() for own in group.stack.parameters["prototypes"]
        ]
    assert max(apart[1.0]) < 0.5 * min(apart[0.0])


def test_tfmean_keeps_frequencies_apart():
    head = make("tfmean")
    tokens, _, valid = inputs_for(HEADS["tfmean"], num_valid=6)  # three of five time steps
    by_time = tokens.view(B, T, F, D)
    rows = torch.cat([by_time[:, :3, f].mean(dim=1) for f in range(F)], dim=-1)
    torch.testing.assert_close(head(tokens, None, valid), head.classify(rows))


def test_linpre_takes_the_largest_logit_of_each_class():
    head = make("linpre")
    tokens, _, valid = inputs_for(HEADS["linpre"], num_valid=7)
    torch.testing.assert_close(head(tokens, None, valid), head.classify(tokens[:, :7]).amax(dim=1))


def test_conv_sees_neighbours_in_time_and_frequency():
    head = make("conv")
    tokens, _, _ = inputs_for(HEADS["conv"])
    padded = torch.zeros(B, T + 2, F + 2, D)
    padded[:, 1:-1, 1:-1] = tokens.view(B, T, F, D)
    logits = torch.stack(
        [
            sum(
                padded[:, t + i, f + j] @ head.classify.weight[:, :, i, j].T
                for i in range(3)
                for j in range(3)
            )
            for t in range(T)
            for f in range(F)
        ],
        dim=1,
    )
    torch.testing.assert_close(head(tokens, None, None), logits.amax(dim=1) + head.classify.bias)


def test_gated_probe_equals_its_formula():
    head = make("cgp")
    with torch.no_grad():
        head.gates.copy_(torch.tensor([0.3, -1.0, 2.0]))
    tokens, cls, valid = inputs_for(HEADS["cgp"], num_valid=7)
    share = head.gates.softmax(0)
    mixture = sum(share[k] * nn_f.normalize(tokens[:, k, :7], dim=-1) for k in range(LAYERS))
    whole = sum(share[k] * nn_f.normalize(cls[:, k], dim=-1) for k in range(LAYERS))
    direction = nn_f.normalize(head.prototypes, dim=-1)
    products = mixture @ direction.T
    parts = [products.amin(dim=1), whole @ direction.T, products.amax(dim=1)]
    features = torch.stack(parts, dim=-1).reshape(B, -1)
    torch.testing.assert_close(head(tokens, cls, valid), head.classify(features))
    parts[1] = products.mean(dim=1)
    features = torch.stack(parts, dim=-1).reshape(B, -1)
    torch.testing.assert_close(head(tokens, None, valid), head.classify(features))


@pytest.mark.parametrize("form", ["auto", "blocks"])
def test_the_gradient_of_the_extremes_is_that_of_plain_products(form: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEATCACHE_MATCH", form)
    torch.manual_seed(3)
    tokens = torch.randn(B, LAYERS, 6, D)
    scale = 1 / tokens.norm(dim=-1)
    valid = torch.ones(B, 6, dtype=torch.bool)
    valid[0, 4:] = False
    gates, prototypes = torch.randn(LAYERS), torch.randn(9, D)
    weights, found = torch.randn(2, B, 9), []
    for own in (Extremes.apply, extremes, plain_extremes):
        inputs = gates.clone().requires_grad_(), prototypes.clone().requires_grad_()
        both = torch.stack(own(tokens, scale, inputs[0].softmax(0), nn_f.normalize(inputs[1], dim=-1), valid))
        found.append((both, *torch.autograd.grad((both * weights).sum(), inputs)))
    for ours, theirs, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
        torch.testing.assert_close(theirs, plain)


def test_the_gradient_of_abmilps_network_is_that_of_plain_operations(monkeypatch: pytest.MonkeyPatch):
    head, found = make("abmilp"), []
    tokens, _, valid = inputs_for(HEADS["abmilp"], num_valid=7)
    for form in ("auto", "reference"):
        monkeypatch.setenv("FEATCACHE_MATCH", form)
        logits = head(tokens, None, valid)
        found.append((logits, *torch.autograd.grad(logits.square().sum(), [*head.parameters()])))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def plain_extremes(
    tokens: torch.Tensor,
    scale: torch.Tensor,
    share: torch.Tensor,
    direction: torch.Tensor,
    valid: torch.Tensor,
):
    products = torch.einsum("l,bln,blnd,kd->bnk", share, scale, tokens, direction)
    low, high = (products.masked_fill(~valid.unsqueeze(-1), edge) for edge in (torch.inf, -torch.inf))
    return low.amin(dim=1), high.amax(dim=1)


def test_attentive_layers_equal_attention_on_a_mixture_of_normed_layers():
    head = make("attentive-layers")
    tokens, _, valid = inputs_for(HEADS["attentive-layers"], num_valid=7)
    normed = nn_f.layer_norm(tokens, (D,), eps=1e-6)
    mixture = torch.einsum("l,blnd->bnd", head.gates.softmax(dim=0), normed)
    torch.testing.assert_close(mixture, normed.mean(dim=1))
    ours, plain = head(tokens, None, valid), head.classify(Attentive.pool(head, mixture, None, valid))
    torch.testing.assert_close(ours, plain)
    weights, learned = torch.randn_like(ours), list(head.parameters())
    both = (torch.autograd.grad((logits * weights).sum(), learned) for logits in (ours, plain))
    for own, wanted in zip(*both, strict=True):
        torch.testing.assert_close(own, wanted)


def test_attentive_is_a_name_of_mhca():
    assert head_spec("attentive") is HEADS["mhca"]
    assert build_head("attentive", 24, 2).config["name"] == "mhca"


def test_unknown_head_names_the_nearest():
    with pytest.raises(InputError, match="no head named 'protobim'; did you mean 'protobin'"):
        build_head("protobim", 8, 2)


def test_unknown_option_of_a_head_is_named():
    with pytest.raises(InputError, match=r"head 'linear' cannot be built with .*per_class"):
        build_head("linear", 8, 2, per_class=3)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"per_class": -1}, "a whole number, 1 or more"),
        ({"per_class": 0}, "a whole number, 1 or more"),
        ({"per_class": "x"}, "a whole number, 1 or more"),
        ({"num_prototypes": 1.5}, "a whole number, 1 or more"),
        ({"num_prototypes": True}, "a whole number, 1 or more"),
        ({"dropout": 1}, "a number from 0 to below 1"),
        ({"dropout": float("nan")}, "a number from 0 to below 1"),
        ({"clip": "maybe"}, "true or false"),
    ],
)
def test_a_value_that_an_option_cannot_take_is_one_line(options, wanted):
    (name,) = options
    with pytest.raises(InputError, match=f"head 'protobin' cannot be built with {name}=.*: wanted {wanted}$"):
        build_head("protobin", 8, 2, **options)
    assert build_head("protobin", 8, 2, per_class=None, dropout=0, clip=True)


@pytest.mark.parametrize("name", ["conv", "tfmean"])
def test_heads_of_the_grid_ask_for_it(name):
    with pytest.raises(InputError, match=rf"head '{name}' reads the \(F, T\) grid"):
        build_head(name, 8, 2)


@pytest.mark.parametrize(
    ("name", "options"), [("mhca", {"num_heads": 4}), ("ep", {}), ("attentive-layers", {"num_heads": 4})]
)
def test_heads_that_split_the_width_say_when_it_does_not_divide(name, options):
    with pytest.raises(InputError, match=r"do not divide 10 dimensions; give num_"):
        build_head(name, 10, 2, **options)


def test_attention_heads_fit_the_width_by_default():
    assert [build_head("mhca", dim, 2).num_heads for dim in (256, 768, 10)] == [8, 12, 10]
