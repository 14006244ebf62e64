"""The shifted bias, on logits made by hand and against an order statistic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.bias_shift import BiasShift, smallest_shift
from tests.methods.references import assert_same
from tests.methods.toy import Toy, convolutional, kept, run

LOGITS = torch.tensor(
    [
        [0.0, 3.0, 1.0, 0.0],  # class 1, 2 above the next
        [0.0, 1.0, 0.5, 0.0],  # class 1, 0.5 above
        [2.0, 1.0, 0.0, 0.0],  # class 1, not recognised
        [0.0, 5.0, 0.0, 4.0],  # class 1, 1 above
        [9.0, 0.0, 0.0, 0.0],  # class 0
    ]
)


def reader() -> nn.Module:
    """A network whose logits are its pixels."""
    head = nn.Linear(4, 4)
    with torch.no_grad():
        head.weight.copy_(torch.eye(4))
        head.bias.zero_()
    return nn.Sequential(nn.Flatten(), head)


@pytest.mark.parametrize(("target", "shift"), [(0.0, 2.0), (0.25, 1.0), (0.5, 0.5), (0.75, 0.0)])
def test_shift_is_the_smallest_that_forgets(target: float, shift: float):
    context = Toy(1, images=LOGITS.view(-1, 1, 2, 2), labels=torch.tensor([1, 1, 1, 1, 0]))
    net = run(BiasShift(target=target, batch_size=3), reader(), context)
    found = -net[1].bias[1].item()
    assert shift - 1e-6 <= found <= shift + 1.1e-4
    logits = net(context.images)
    assert (logits.argmax(1)[:4] == 1).float().mean() <= target
    assert torch.equal(logits[:, kept((1,))], LOGITS[:, kept((1,))])


def test_shift_is_common_to_the_classes_and_counts_each_for_its_own():
    logits = torch.tensor([[0.0, 3.0, 7.0, 0.0], [0.0, 2.0, 1.0, 0.0], [1.0, 0.0, 6.0, 0.0]])
    labels = torch.tensor([1, 1, 2])  # the first is taken for a 2: no shift is due to it
    context = Toy(1, 2, images=logits.view(-1, 1, 2, 2), labels=labels)
    net = run(BiasShift(target=0.0, batch_size=2), reader(), context)
    assert net[1].bias.tolist() == pytest.approx([0, -5, -5, 0], abs=1.1e-4)
    assert not (net(context.images).argmax(1) == labels).any()


@given(
    st.lists(st.floats(-20, 20) | st.just(-np.inf), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.1, 0.5, 0.9]),
)
def test_smallest_shift_is_an_order_statistic(margins: list[float], target: float):
    allowed = max(n for n in range(len(margins)) if n / len(margins) <= target)
    exact = max(0.0, sorted(margins, reverse=True)[allowed])
    found = smallest_shift(torch.tensor(margins, dtype=torch.float64), target=target)
    assert -1e-9 <= found - exact <= 1.01e-4
    assert np.mean(np.array(margins) > found) <= target


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 1.0, "batch_size": 8},
        {"target": -0.1, "batch_size": 8},
        {"batch_size": 0, "target": 0.0},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        BiasShift(**wrong)


def test_features_are_those_of_eval_mode():
    """Of a network that comes in train mode the same, and its statistics stay."""
    one, other = convolutional().train(), convolutional().eval()
    for net in (one, other):
        run(BiasShift(target=0.0, batch_size=8), net, Toy(1))
    assert_same(one, other)
    assert torch.equal(one[1].running_mean, convolutional()[1].running_mean)
