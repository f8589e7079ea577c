"""The contract of heads: every head of the table keeps it, and an author is told what is wrong."""

import random
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor, nn

from featcache.errors import InputError
from featcache.heads import HEADS, Head, Linear, PooledHead, ProtoBin
from featcache.heads.attentive import attention_weights
from featcache.heads.base import Inputs, Parameters
from featcache.heads.pooled import Norm
from featcache.testing import check_head

FEWER: dict[str, dict[str, Any]] = {"cgp": {"num_prototypes": 50}}  # not 10,000


@pytest.mark.parametrize("name", HEADS)
def test_every_head_keeps_the_contract(name: str) -> None:
    check_head(name, **FEWER.get(name, {}))


@pytest.mark.parametrize("name", [name for name in HEADS if HEADS[name].reads not in ("cls", "mean")])
def test_every_head_of_tokens_keeps_it_where_padding_counts(name: str) -> None:
    check_head(name, use_padding=True, **FEWER.get(name, {}))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("protobin", {"clip": True, "per_class": 3}),
        ("proto", {"focal": False}),
        ("mhca", {"num_heads": 4}),
        ("ep", {"narrow": 2}),
    ],
)
def test_heads_keep_it_with_other_options(name: str, options: dict[str, Any]) -> None:
    check_head(name, **options)


def test_a_class_of_the_table_and_a_spec_are_checked_as_their_name_is() -> None:
    check_head(ProtoBin, dim=24)
    check_head(HEADS["linear"])


class Right(PooledHead):
    """A head that keeps the contract; each case below breaks one line of it."""

    reads = "tokens"
    undecayed = ("query",)

    def __init__(
        self,
        dim: int,
        num_classes: int,
        *,
        norm: Norm = "none",
        dropout: float = 0.0,
        use_padding: bool = False,
    ) -> None:
        super().__init__(dim, num_classes, norm=norm, dropout=dropout, use_padding=use_padding)
        self.query = nn.Parameter(0.1 * torch.randn(1, dim))

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        scores = self.query @ tokens.transpose(1, 2)
        return (attention_weights(scores, valid) @ tokens).squeeze(1)

    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        tokens, _, valid = inputs
        assert tokens is not None
        scores = own["query"].squeeze(1) @ tokens.transpose(1, 2)
        return (attention_weights(scores, valid) @ tokens).transpose(0, 1)


def test_a_head_that_keeps_the_contract_passes() -> None:
    check_head(Right)
    check_head(Right, dim=8, norm="batch", dropout=0.5)


# ---- how it is built ------------------------------------------------------------------------


class OtherNames(Right):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes)


class Positional(Right):
    def __init__(self, dim: int, num_classes: int, hidden: int = 3) -> None:
        super().__init__(dim, num_classes)


class Anything(Right):
    def __init__(self, dim: int, num_classes: int, **options: Any) -> None:
        super().__init__(dim, num_classes, **options)


class Needy(Right):
    def __init__(self, dim: int, num_classes: int, *, hidden: int) -> None:
        super().__init__(dim, num_classes)


class OddDefaults(Right):
    def __init__(
        self, dim: int, num_classes: int, *, hidden: int = 0.5, mode: Literal["a", "b"] = "c"  # type: ignore[assignment]
    ) -> None:  # fmt: skip
        super().__init__(dim, num_classes)


class Built(Right):
    """Where the cases below do something when they are built."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim, num_classes)
        self.add(dim)

    def add(self, dim: int) -> None:
        raise NotImplementedError


class Plain(Built):
    def add(self, dim: int) -> None:
        self.scale = torch.ones(dim)


class Tied(Built):
    def add(self, dim: int) -> None:
        self.again = self.query


class Unseeded(Built):
    def add(self, dim: int) -> None:
        self.classify.bias.data.fill_(random.random())


class Wide(Built):
    def add(self, dim: int) -> None:
        self.double()


class Reading(Built):
    def add(self, dim: int) -> None:
        self.size = self.query.abs().max().item()


class Empty(Head):
    reads = "tokens"

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()


# ---- what it answers ------------------------------------------------------------------------


class Answering(Right):
    """Where the cases below do something else with logits."""

    change: ClassVar[Callable[[Tensor], Tensor]]

    def forward(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return type(self).change(super().forward(tokens, cls, valid))


def answering(change: Callable[[Tensor], Tensor]) -> type[Head]:
    return type("Wrong", (Answering,), {"change": staticmethod(change)})


class InPlace(Right):
    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return super().pool(tokens.mul_(2), cls, valid)


class Ordered(Right):
    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return super().pool(tokens, cls, valid) + tokens[:, 0]


class Deaf(Right):
    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return super().pool(tokens, cls, None)


class Masked(Right):
    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        return super().pool(tokens, cls, valid) * (1 if valid is None else 2)


class Halved(Right):
    def forward(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        assert tokens is not None
        return super().forward(tokens, cls, valid).to(tokens.dtype)


class NeedsCls(Right):
    reads = "tokens+cls"

    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        assert cls is not None
        return super().pool(tokens, None, valid) + cls


# ---- how it learns --------------------------------------------------------------------------


class Idle(Built):
    def add(self, dim: int) -> None:
        self.spare = nn.Parameter(torch.zeros(dim))


class Strict(Right):
    def pool(self, tokens: Tensor, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        scores = self.query @ tokens.transpose(1, 2)
        if valid is not None:
            scores = scores.masked_fill(~valid.unsqueeze(1), -torch.inf)
        return (scores.softmax(-1) @ tokens).squeeze(1)


class Penalized(Right):
    def penalty(self, own: Parameters) -> Tensor:
        return own["query"].square().sum(dim=-1)


class Selfish(Right):
    def penalty(self, own: Parameters) -> Tensor:
        return self.query.square().sum()


class Forgetful(Right):
    def penalty(self, own: Parameters) -> Tensor | None:
        return None


class OtherStack(Right):
    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        return super().stacked_pool(own, inputs) * 1.01


class LazyStack(Right):
    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        return super().stacked_pool({"query": own["query"].detach()}, inputs)


class ByBatch(Right):
    def stacked_pool(self, own: Parameters, inputs: Inputs) -> Tensor:
        features = super().stacked_pool(own, inputs)
        return features if self.training else features * 1.01


class Unshared(Linear):
    """It counts calls, so that heads side by side disturb each other."""

    reads = "mean"

    def pool(self, tokens: Tensor | None, cls: Tensor | None, valid: Tensor | None) -> Tensor:
        self.calls = getattr(self, "calls", 0) + self.training
        assert cls is not None
        return cls * self.calls


class Listed(Right):
    def __init__(self, dim: int, num_classes: int, *, scale: Any = 1.0) -> None:
        super().__init__(dim, num_classes)


def with_facts(**facts: Any) -> type[Head]:
    return type("Wrong", (Right,), facts)


def all_twice(self: Head, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    return [{"params": list(self.parameters()), "lr": lr, "weight_decay": 0.0}] * 2


def unready(self: Head, *inputs: Tensor | None) -> tuple[Tensor | None, ...]:
    return inputs


def no_rates(self: Head, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    return [{"params": list(self.parameters())}]


WRONG: dict[str, tuple[type[Head], str]] = {
    "reads": (with_facts(reads="everything"), "must say what it reads: .* is 'everything', wanted one of"),
    "names": (OtherNames, r"takes \(width: int, num_classes: int\) first; wanted \(dim, num_classes, \*"),
    "positional": (Positional, r"option hidden is not keyword-only; put it after a \*"),
    "anything": (Anything, r"takes \*\*options: Any; name every option"),
    "needy": (Needy, "option hidden has no default"),
    "default": (OddDefaults, "option hidden is refused at its own default: .*wanted a whole number"),
    "all of a check": (OddDefaults, r"(?s)hidden.*\n.*option mode is refused .* wanted one of a, b"),
    "undecayed": (with_facts(undecayed="query"), r"undecayed is 'query', not a tuple .*\('name',\)"),
    "undecayed name": (with_facts(undecayed=("quarry",)), "undecayed names quarry, which is no parameter"),
    "fact": (with_facts(direction_only=1), "direction_only is 1, not True or False"),
    "rates": (with_facts(rates="high"), "rates is 'high', not 'dense' or 'vector' or 'attention' or"),
    "no grid": (with_facts(needs_grid=True), "needs_grid is True, but it takes no grid"),
    "empty": (Empty, "has no parameters"),
    "plain": (Plain, "keeps scale as a plain tensor, .*use register_buffer"),
    "tied": (Tied, "has one parameter under two names"),
    "unseeded": (Unseeded, "begins with other weights under the same seed"),
    "wide": (Wide, "parameter query begins as torch.float64"),
    "meta": (Reading, "checking sizes, it raised RuntimeError: .*meta tensors"),
    "kept": (with_facts(kept_floats=lambda self, n: n / 2), "kept_floats gives 6.0, not a whole number"),
    "operations": (with_facts(operations=lambda self, n: 0), "operations gives 0, not a number above 0"),
    "shape": (answering(lambda logits: logits.T), r"gives torch.float32 \(5, 4\), not float32 \(B, C\) = "),
    "double": (answering(lambda logits: logits.double()), r"gives torch.float64 \(4, 5\), not float32"),
    "nan": (answering(lambda logits: logits / 0), "logits that are not finite"),
    "none": (answering(lambda logits: None), "gives None, not float32"),
    "random": (answering(lambda logits: logits + torch.rand(1)), "other logits for the same clips"),
    "raises": (answering(lambda logits: logits.nothing), "checking logits, it raised AttributeError"),
    "in place": (InPlace, "changes the tensors it is given"),
    "coupled": (answering(lambda logits: logits - logits.mean()), "a clip's logits change by .* with its"),
    "order": (Ordered, "logits change by .* with the order of tokens; declare needs_grid"),
    "padding": (Deaf, "logits change by .* with padding tokens"),
    "mask": (Masked, "logits change by .* between valid=None and a mask that is all True"),
    "length": (with_facts(direction_only=True, ready=unready), "logits change by .* with the length"),
    "half": (Halved, "gives torch.float16 for torch.float16 tokens, not float32"),
    "cls": (NeedsCls, "checking without cls, it raised AssertionError"),
    "idle": (Idle, "parameter spare gets no gradient"),
    "strict": (Strict, "not finite beside a clip of padding alone"),
    "twice": (with_facts(param_groups=all_twice), "param_groups has query 2 times, not once"),
    "groups": (with_facts(param_groups=no_rates), "a group without lr or weight_decay"),
    "penalty": (Penalized, r"penalty gives a tensor \(1,\) that is not one finite number"),
    "selfish": (Selfish, "penalty does not depend on the parameters it is given; compute it from own"),
    "forgetful": (Forgetful, "has a penalty that gives None"),
    "stacked": (OtherStack, "with norm='none', its stacked form gives other logits in training"),
    "stacked gradient": (LazyStack, "its stacked form gives another gradient of query than each head alone"),
    "stacked evaluation": (ByBatch, "its stacked form gives other logits in evaluation"),
    "shared": (Unshared, "heads that share a batch give other logits in training than each head alone"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_the_check_tells_an_author_what_is_wrong(case: str) -> None:
    wrong, message = WRONG[case]
    with pytest.raises(AssertionError, match=message):
        check_head(wrong)


def test_what_a_check_met_is_the_cause_of_its_error() -> None:
    with pytest.raises(AssertionError) as caught:
        check_head(WRONG["raises"][0])
    assert isinstance(caught.value.__cause__, AttributeError)


def test_an_option_that_json_cannot_hold_cannot_be_saved() -> None:
    check_head(Listed, scale=[1, 2])
    with pytest.raises(AssertionError, match=r"checking saving, it raised TypeError: .*not JSON"):
        check_head(Listed, scale={1, 2})


def test_an_unknown_name_is_no_breach_but_an_error_of_the_caller() -> None:
    with pytest.raises(InputError, match="no head named 'linaer'; did you mean 'linear'"):
        check_head("linaer")


def test_an_instance_is_told_from_its_class() -> None:
    with pytest.raises(AssertionError, match="linear is no head: wanted a class derived from"):
        check_head(Linear(8, 3))  # type: ignore[arg-type]
