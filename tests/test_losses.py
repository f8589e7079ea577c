"""Each loss against its formula, written out."""

import pytest
import torch
from torch.nn import functional as nn_f

from featcache.errors import InputError
from featcache.heads.training.losses import LOSSES, build_loss

LOGITS = torch.tensor([[2.0, -1.0, 0.3], [-3.0, 0.0, 4.0]])
TARGETS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])


def asymmetric_by_hand(gamma_negative: float, gamma_positive: float, clip: float) -> torch.Tensor:
    total = 0.0
    for z, y in zip(LOGITS.flatten().double(), TARGETS.flatten(), strict=True):
        p = torch.sigmoid(z)
        shifted = torch.clamp(p - clip, min=0)
        if y == 1:
            total = total - (1 - p) ** gamma_positive * torch.log(p)
        else:
            total = total - shifted**gamma_negative * torch.log(1 - shifted)
    return total / LOGITS.numel()


@pytest.mark.parametrize(
    ("name", "values"), [("asymmetric", (4.0, 1.0, 0.05)), ("asymmetric-light", (1.0, 0.0, 0.0))]
)
def test_asymmetric_presets_equal_the_formula(name, values):
    expected = asymmetric_by_hand(*values).float()
    torch.testing.assert_close(build_loss(name)(LOGITS, TARGETS), expected, rtol=1e-5, atol=1e-7)


def test_asymmetric_without_focus_is_binary_cross_entropy():
    plain = build_loss("asymmetric", gamma_negative=0.0, gamma_positive=0.0, clip=0.0)
    torch.testing.assert_close(plain(LOGITS, TARGETS), build_loss("bce")(LOGITS, TARGETS))


def test_asymmetric_focus_carries_no_gradient_unless_asked():
    logits = LOGITS.clone().requires_grad_()
    (detached,) = torch.autograd.grad(build_loss("asymmetric")(logits, TARGETS), logits)
    (through,) = torch.autograd.grad(build_loss("asymmetric", through_focus=True)(logits, TARGETS), logits)
    # By hand for the first entry, a present class: -(1-p) * d log p / dz / 6 with the factor held.
    p = torch.sigmoid(LOGITS[0, 0])
    torch.testing.assert_close(detached[0, 0], -(1 - p) * (1 - p) / 6)
    torch.testing.assert_close(through[0, 0], -((1 - p) * (1 - p) - p * (1 - p) * p.log()) / 6)


def test_focal_equals_the_formula():
    p = torch.sigmoid(LOGITS)
    right = torch.where(TARGETS == 1, p, 1 - p)
    alpha = torch.where(TARGETS == 1, 0.25, 0.75)
    expected = (-alpha * (1 - right) ** 2 * right.log()).mean()
    torch.testing.assert_close(build_loss("focal")(LOGITS, TARGETS), expected)


def test_cross_entropy_takes_class_numbers_or_label_rows():
    numbers = torch.tensor([0, 1])
    rows = nn_f.one_hot(numbers, 3)
    loss = build_loss("cross-entropy")
    torch.testing.assert_close(loss(LOGITS, numbers), loss(LOGITS, rows))


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_give_finite_loss_and_gradient(name):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    loss = build_loss(name)(logits, torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_unknown_loss_names_the_nearest():
    with pytest.raises(InputError, match="no loss named 'assymetric'; did you mean 'asymmetric'"):
        build_loss("assymetric")


def test_unknown_option_of_a_loss_is_named():
    with pytest.raises(InputError, match=r"loss 'focal' cannot be built with .*gama"):
        build_loss("focal", gama=1.0)
