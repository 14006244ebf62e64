"""Steps down a loss: plain in single precision, scaled where gradients would vanish."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ConstantLR

from orthounlearn.methods.class_edits.descent import Descent
from tests.methods.toy import Toy

RATE = 0.1


class In(Toy):
    """A context of a precision."""

    def __init__(self, precision: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(1)
        self.autocast = precision


def half() -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.float16)


def descent(context: Toy, weight: Tensor, **options: float) -> tuple[Descent, ConstantLR]:
    optimizer = torch.optim.SGD([weight], lr=RATE)
    schedule = ConstantLR(optimizer, factor=1.0)
    return Descent(context, [weight], optimizer, schedule, **options), schedule


def tiny(context: Toy, weight: Tensor, *, by: float = 1e-5) -> Tensor:
    """Return a loss whose gradient passes a product in the context's precision."""
    with context.autocast():
        answer = F.linear(torch.full((1, 4), 1e-3), weight)
    return by * answer.float().sum()


@pytest.mark.parametrize("precision", [nullcontext, half])
def test_a_step_is_the_rate_times_the_gradient(precision: Callable):
    """A gradient of 1e-8 is 0 in half precision, unless the loss is scaled."""
    context, weight = In(precision), nn.Parameter(torch.zeros(1, 4))
    way, _ = descent(context, weight)
    way.step(tiny(context, weight))
    torch.testing.assert_close(weight, torch.full((1, 4), -RATE * 1e-8), rtol=1e-2, atol=0)


def test_without_scaling_it_would_vanish():
    context, weight = In(half), nn.Parameter(torch.zeros(1, 4))
    tiny(context, weight).backward()
    assert not weight.grad.any()


@pytest.mark.parametrize("precision", [nullcontext, half])
def test_gradients_are_cut_to_the_longest_as_they_are(precision: Callable):
    context, weight = In(precision), nn.Parameter(torch.zeros(1, 4))
    way, _ = descent(context, weight, longest=1e-3)
    way.step(tiny(context, weight, by=10))  # a gradient of 0.01 each, 0.02 long
    torch.testing.assert_close(weight.norm().item(), RATE * 1e-3, rtol=1e-3, atol=0)


def test_a_step_that_overflows_is_left_out_with_its_schedule():
    context, weight = In(half), nn.Parameter(torch.zeros(1, 4))
    way, schedule = descent(context, weight, longest=1.0)
    way.step(tiny(context, weight, by=1e9))
    assert not weight.any()
    assert schedule.last_epoch == 0
    way.step(tiny(context, weight, by=1.0))
    assert weight.isfinite().all()
    assert weight.any()
    assert schedule.last_epoch == 1
