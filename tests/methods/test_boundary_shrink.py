"""Boundary Shrink: its attack and its loss, by hand on linear models."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.config import CONF_DIR
from orthounlearn.errors import UsageError
from orthounlearn.methods.boundary_shrink import BoundaryShrink, fgsm
from tests.methods.toy import (
    FROZEN,
    IMAGES,
    LABELS,
    MEAN_C11,
    PIXELS,
    STD_C11,
    Toy,
    convolutional,
    linear,
)


def in_pixels(images: Tensor) -> np.ndarray:
    return (images * STD_C11 + MEAN_C11).numpy()


@pytest.mark.parametrize("epsilon", [0.09, 0.02])  # no step ends half-way between grey values
def test_fgsm_of_a_linear_model_by_hand(epsilon: float):
    """∇ₓCE = Wᵀ(p − e_y); a step against the label in pixels, cut to [0, 1] and to 8 bits."""
    net = linear()
    with torch.no_grad():
        error = net(IMAGES).softmax(1) - F.one_hot(LABELS, 4)
    gradient = (error @ net[1].weight.detach()).view_as(IMAGES).numpy()
    moved = np.clip(PIXELS.numpy() + epsilon * np.sign(gradient), 0, 1)
    found = fgsm(net, IMAGES, LABELS, epsilon=epsilon, mean_C11=MEAN_C11, std_C11=STD_C11)
    np.testing.assert_allclose(in_pixels(found) * 255, np.rint(moved * 255), atol=1e-3)


@given(st.floats(0.01, 1.0), st.integers(0, 2**31))
def test_fgsm_stays_near_and_in_the_range_of_8_bit_images(epsilon: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (4, 3, 4, 4), generator=generator) / 255
    weight = torch.randn(3, 48, generator=generator)
    labels = torch.randint(3, (4,), generator=generator)
    attacked = fgsm(
        lambda images: images.flatten(1) @ weight.T,
        (pixels - MEAN_C11) / STD_C11,
        labels,
        epsilon=epsilon,
        mean_C11=MEAN_C11,
        std_C11=STD_C11,
    )
    found = in_pixels(attacked)
    assert np.abs(found - pixels.numpy()).max() <= epsilon + 0.5 / 255 + 1e-5
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6
    np.testing.assert_allclose(found * 255, np.rint(found * 255), atol=1e-3)


def test_fgsm_raises_the_loss_and_leaves_no_trace(net: nn.Module):
    attacked = fgsm(net, IMAGES, LABELS, epsilon=0.1, mean_C11=MEAN_C11, std_C11=STD_C11)
    assert F.cross_entropy(net(attacked), LABELS) > F.cross_entropy(net(IMAGES), LABELS)
    assert not attacked.requires_grad
    assert all(p.grad is None for p in net.parameters())


def test_shrink_is_cross_entropy_with_the_label_of_the_attacked_image(net: nn.Module):
    method = BoundaryShrink(epsilon=0.1, **FROZEN)
    started = method.start(net, Toy(1))
    attacked = fgsm(net, IMAGES, LABELS, epsilon=0.1, mean_C11=MEAN_C11, std_C11=STD_C11)
    logits = net(attacked).detach()
    logits[:, 1] = -1e9
    neighbours = logits.argmax(1)
    expected = -net(IMAGES).log_softmax(1)[torch.arange(40), neighbours].mean()
    found = method.loss(started, {"forget_train": (IMAGES, LABELS)})
    torch.testing.assert_close(found, expected)

    with torch.no_grad():  # the neighbours are the original model's, however the net changes
        for parameter in started.parameters():
            parameter.normal_()
    assert torch.equal(method.neighbours(IMAGES, LABELS), neighbours)
    assert all(p.requires_grad for p in started.parameters())


def test_neighbours_are_those_of_the_original_in_eval_mode():
    """The engine hands the network over in eval mode, but a method may not rely on it."""
    images = IMAGES[:5] + 3  # a batch whose own statistics are far from the running ones
    of_modes = []
    for mode in (True, False):
        method = BoundaryShrink(epsilon=0.1, **FROZEN)
        started = method.start(convolutional().train(mode), Toy(1))
        of_modes.append(method.neighbours(images, LABELS[:5]))
        assert not method._original.training
        assert started.training == mode
    assert torch.equal(*of_modes)


@pytest.mark.parametrize("forget", [(1,), (1, 2)])
def test_a_failed_attack_leads_to_the_next_class_that_is_retained(forget):
    """Class 1 wins by far, then come 2, 0 and 3: no step of ε changes that."""
    net = linear()
    with torch.no_grad():
        net[1].weight.mul_(1e-3)
        net[1].bias.copy_(torch.tensor([2.0, 9.0, 5.0, 0.0]))
    method = BoundaryShrink(epsilon=0.1, **FROZEN)
    method.start(net, Toy(*forget))
    expected = 2 if forget == (1,) else 0
    assert method.neighbours(IMAGES, torch.ones(40, dtype=torch.long)).unique().item() == expected


def test_batches_of_the_forget_set_alone_freeze_the_statistics():
    assert OmegaConf.load(Path(CONF_DIR, "method", "boundary_shrink.yaml")).batch_norm == "frozen"


@pytest.mark.parametrize("epsilon", [0.0, 1.5])
def test_shrink_refuses_an_epsilon_outside_of_the_pixels(epsilon: float):
    with pytest.raises(UsageError, match=r"method\.epsilon"):
        BoundaryShrink(epsilon=epsilon, **FROZEN)
