"""Fine-tuning: the loss is cross-entropy on the retained images."""

import torch
from torch import nn
from torch.nn import functional as F

from orthounlearn.methods.fine_tune import FineTune
from tests.methods.toy import (
    FROZEN,
    IMAGES,
    LABELS,
    ONE_STEP,
    OPTIONS,
    Toy,
    convolutional,
    stepped,
    trained,
)


def test_fine_tune_is_cross_entropy(net: nn.Module):
    batch = {"retain_train": (IMAGES[:8], LABELS[:8])}
    expected = -net(IMAGES[:8]).log_softmax(1)[torch.arange(8), LABELS[:8]].mean()
    torch.testing.assert_close(FineTune(**OPTIONS).loss(net, batch), expected)


def test_one_step_descends_along_the_gradient_of_the_retained_images():
    images, labels = Toy(1).of("retain_train")
    net = convolutional()
    log_p = net(images).log_softmax(1)[torch.arange(len(labels)), labels]
    expected = stepped(net, -log_p.mean())
    for name, value in trained(FineTune(**FROZEN | ONE_STEP), net, 1).named_parameters():
        torch.testing.assert_close(value.detach(), expected[name])


def test_retain_loss_falls_and_frozen_statistics_stay():
    images, labels = Toy(1).of("retain_train")
    net = convolutional()
    after = trained(FineTune(**FROZEN), net, 1).eval()
    assert F.cross_entropy(after(images), labels) < F.cross_entropy(net(images), labels) - 0.01
    assert all(torch.equal(b, after.get_buffer(name)) for name, b in net.named_buffers())
