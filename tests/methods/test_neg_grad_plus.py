"""NegGrad+ goes between descent and ascent."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orthounlearn.errors import UsageError
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.gradient_ascent import GradientAscent
from orthounlearn.methods.neg_grad_plus import NegGradPlus
from tests.methods.references import gradient
from tests.methods.toy import FROZEN, IMAGES, LABELS, OPTIONS, convolutional, linear, trained

BATCH = {"retain_train": (IMAGES[:8], LABELS[:8]), "forget_train": (IMAGES[8:12], LABELS[8:12])}


@settings(max_examples=20)
@given(alpha=st.floats(0, 1))
def test_neg_grad_plus_goes_between_descent_and_ascent(alpha: float):
    net = linear()
    found = NegGradPlus(**OPTIONS, alpha=alpha).loss(net, BATCH)
    log_p = net(IMAGES[:12]).log_softmax(1)[torch.arange(12), LABELS[:12]]
    expected = -alpha * log_p[:8].mean() + (1 - alpha) * log_p[8:].mean()
    torch.testing.assert_close(found, expected)
    down = gradient(FineTune(**OPTIONS).loss(net, BATCH), net)
    up = gradient(GradientAscent(**OPTIONS).loss(net, BATCH), net)
    torch.testing.assert_close(gradient(found, net), alpha * down + (1 - alpha) * up)


def test_neg_grad_plus_with_frozen_statistics_leaves_them_alone():
    net = convolutional()
    after = trained(NegGradPlus(**FROZEN, alpha=0.5), net, 1)
    assert all(torch.equal(b, after.get_buffer(name)) for name, b in net.named_buffers())
    assert not torch.equal(net[0].weight, after[0].weight)


@pytest.mark.parametrize("wrong", [{"alpha": 1.5}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        NegGradPlus(**OPTIONS, **wrong)
