"""Gradient ascent: the loss is minus the cross-entropy on the forgotten images."""

import torch
from torch import nn
from torch.nn import functional as F

from orthounlearn.methods.gradient_ascent import GradientAscent
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


def test_gradient_ascent_is_minus_cross_entropy(net: nn.Module):
    batch = {"forget_train": (IMAGES[:8], LABELS[:8])}
    expected = -F.cross_entropy(net(IMAGES[:8]), LABELS[:8])
    torch.testing.assert_close(GradientAscent(**OPTIONS).loss(net, batch), expected)


def test_one_step_climbs_along_the_gradient_of_the_forgotten_images():
    images, labels = Toy(1).of("forget_train")
    net = convolutional()
    log_p = net(images).log_softmax(1)[torch.arange(len(labels)), labels]
    expected = stepped(net, log_p.mean())
    for name, value in trained(GradientAscent(**FROZEN | ONE_STEP), net, 1).named_parameters():
        torch.testing.assert_close(value.detach(), expected[name])


def test_forget_loss_rises_and_frozen_statistics_stay():
    images, labels = Toy(1).of("forget_train")
    net = convolutional()
    after = trained(GradientAscent(**FROZEN), net, 1).eval()
    assert F.cross_entropy(after(images), labels) > F.cross_entropy(net(images), labels) + 0.1
    assert all(torch.equal(b, after.get_buffer(name)) for name, b in net.named_buffers())
