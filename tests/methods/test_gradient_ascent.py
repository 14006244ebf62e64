"""Gradient ascent: the loss is minus the cross-entropy on the forgotten images."""

import torch
from torch import nn
from torch.nn import functional as F

from orthounlearn.methods.gradient_ascent import GradientAscent
from tests.methods.toy import IMAGES, LABELS, OPTIONS


def test_gradient_ascent_is_minus_cross_entropy(net: nn.Module):
    batch = {"forget_train": (IMAGES[:8], LABELS[:8])}
    expected = -F.cross_entropy(net(IMAGES[:8]), LABELS[:8])
    torch.testing.assert_close(GradientAscent(**OPTIONS).loss(net, batch), expected)
