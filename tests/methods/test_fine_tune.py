"""Fine-tuning: the loss is cross-entropy on the retained images."""

import torch
from torch import nn

from orthounlearn.methods.fine_tune import FineTune
from tests.methods.toy import IMAGES, LABELS, OPTIONS


def test_fine_tune_is_cross_entropy(net: nn.Module):
    batch = {"retain_train": (IMAGES[:8], LABELS[:8])}
    expected = -net(IMAGES[:8]).log_softmax(1)[torch.arange(8), LABELS[:8]].mean()
    torch.testing.assert_close(FineTune(**OPTIONS).loss(net, batch), expected)
