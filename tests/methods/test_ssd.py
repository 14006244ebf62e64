"""SSD and LFSSD, by hand on a linear model."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.ssd import LFSSD, SSD
from tests.methods.references import values
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy, convolutional, linear, run


def dampened(theta: Tensor, of_all: Tensor, of_forget: Tensor, alpha: float, lam: float) -> Tensor:
    result = theta.clone()
    for index in np.ndindex(*theta.shape):
        if of_forget[index] > alpha * of_all[index]:
            result[index] *= min(lam * float(of_all[index] / of_forget[index]), 1.0)
    return result


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
@pytest.mark.parametrize("kind", [SSD, LFSSD])
def test_dampening_of_a_linear_model_by_hand(kind: type[SSD], forget: tuple[int, ...]):
    """∇_W CE = (p − e_y) xᵀ and ∇_W ‖f‖² = 2 f xᵀ, so both importances are products of moments."""
    net, context = linear(), Toy(*forget)
    before = values(net)

    def importance(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1)
        f = x @ before["1.weight"].T + before["1.bias"]
        if kind is SSD:
            outer = f.softmax(1) - F.one_hot(labels, CLASSES)
            power = 2
        else:
            outer, power = 2 * f, 1
        g = outer.abs() ** power
        return g.T @ (x.abs() ** power) / len(x), g.mean(0)

    of_all, of_forget = importance(IMAGES, LABELS), importance(*context.of("forget_train"))
    after = values(run(kind(alpha=1.1, dampening=0.7), net, context))
    changed = 0
    for name, all_, forget_ in zip(before, of_all, of_forget, strict=True):
        expected = dampened(before[name], all_, forget_, 1.1, 0.7)
        torch.testing.assert_close(after[name], expected)
        changed += int((expected != before[name]).sum())
    assert changed > 5


@pytest.mark.parametrize("kind", [SSD, LFSSD])
def test_importance_does_not_depend_on_the_batch_size(kind: type[SSD]):
    one, many = (
        run(kind(alpha=1.2, batch_size=size), convolutional().train(), Toy(1)) for size in (1, 40)
    )
    assert any(
        not torch.equal(a, b)
        for a, b in zip(values(one).values(), values(convolutional()).values(), strict=True)
    )
    for a, b in zip(one.parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=15)
@given(alpha=st.floats(0.5, 5), lam=st.floats(0.01, 20), kind=st.sampled_from([SSD, LFSSD]))
def test_no_weight_grows_or_changes_its_sign(alpha: float, lam: float, kind: type[SSD]):
    net = linear()
    before = values(net)
    after = values(run(kind(alpha=alpha, dampening=lam, batch_size=40), net, Toy(0)))
    for name, old in before.items():
        assert (after[name].abs() <= old.abs()).all()
        assert (after[name] * old >= 0).all()


def test_no_weight_is_chosen_beyond_the_share_of_the_class():
    """I_D holds D_f's part: I_f / I_D never exceeds |D| / |D_f|, 4 here."""
    net = linear()
    before = values(net)
    for name, value in values(run(SSD(alpha=4.001), net, Toy(0))).items():
        assert torch.equal(value, before[name])


def test_a_weight_without_any_gradient_is_left_alone():
    images = IMAGES.clone()
    images[:, 0, 0, 0] = 0
    net = linear()
    before = net[1].weight.detach().clone()
    run(SSD(alpha=1.01), net, Toy(1, images=images))
    assert torch.equal(net[1].weight[:, 0], before[:, 0])
    assert not torch.equal(net[1].weight, before)
    assert net[1].weight.isfinite().all()


@pytest.mark.parametrize("kind", [SSD, LFSSD])
@pytest.mark.parametrize(
    "wrong", [{"alpha": 0}, {"dampening": -1}, {"samples": 0}, {"batch_size": 0}]
)
def test_options_out_of_range_are_refused(kind: type[SSD], wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        kind(**wrong)
