"""Class-aware importance, with one channel for each class and pixel by pixel."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.class_aware import ClassAware, class_aware_score
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy, convolutional, run


def one_channel_each() -> nn.Sequential:
    """Channel j passes on input channel j; logit j is its mean."""
    net = nn.Sequential(
        nn.Conv2d(CLASSES, CLASSES, 1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CLASSES, CLASSES),
    )  # fmt: skip
    net[0].weight.data = torch.eye(CLASSES)[:, :, None, None]
    return net


def test_only_the_channel_of_the_class_is_removed():
    """Images of class c light up channel c alone; so the score is 1 or 0."""
    images = F.one_hot(LABELS, CLASSES).float()[:, :, None, None].expand(-1, -1, 4, 4).clone()
    for forget in ((0,), (1, 2)):
        net = run(ClassAware(rate=1.0), one_channel_each(), Toy(*forget, images=images))
        silent = net[0].weight.flatten(1).abs().sum(1) == 0
        assert silent.nonzero().flatten().tolist() == list(forget)


@pytest.mark.parametrize("threshold", [0.0, 5e-4])
def test_needs_are_shares_of_images_at_the_pixel_that_needs_most(threshold: float):
    net = convolutional()
    needs = torch.zeros(CLASSES, 6)
    for c in range(CLASSES):
        shares = torch.zeros(6, 8, 8)
        for image in (x for x, label in zip(IMAGES, LABELS, strict=True) if label == c):
            a = net[:2](image[None]).detach().requires_grad_()
            loss = F.cross_entropy(net[3:](a.relu()), torch.tensor([c]))
            (gradient,) = torch.autograd.grad(loss, a)
            shares += ((a * gradient).abs() > threshold).float()[0] / 10
        needs[c] = shares.amax((1, 2))
    method = ClassAware(images_per_class=10, threshold=threshold, rate=0.1)
    method.prepare(net.train(), Toy(1))
    torch.testing.assert_close(method._needs[0], needs)
    assert 0 < needs.mean() < 1

    score = needs[1] * (1 - needs[[0, 2, 3]].mean(0))
    torch.testing.assert_close(class_aware_score(needs, (1,)), score)
    before = net[1].weight.detach().clone()
    method.unlearn(net, Toy(1))
    factors = torch.ones(6)
    factors[score.argmax()] = 0
    torch.testing.assert_close(net[1].weight.detach(), before * factors)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=2, max_size=5))
def test_needing_it_more_raises_the_score_and_other_needs_lower_it(rows: list[list[float]]):
    needs = torch.tensor(rows)
    score = class_aware_score(needs, (0,))
    assert ((score >= 0) & (score <= 1)).all()
    more, others = needs.clone(), needs.clone()
    more[0] = (more[0] + 0.1).clamp(max=1)
    others[1:] = (others[1:] + 0.1).clamp(max=1)
    assert (class_aware_score(more, (0,)) >= score).all()
    assert (class_aware_score(others, (0,)) <= score + 1e-6).all()


@pytest.mark.parametrize("wrong", [{"images_per_class": 0}, {"threshold": -1}, {"rate": 0}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        ClassAware(**wrong)


def test_a_class_without_images_plays_no_part():
    """An earlier request has deleted them."""
    needs = torch.rand(4, 6)
    gone = needs.clone()
    gone[1] = float("nan")
    left = class_aware_score(needs[[0, 2, 3]], (1,))
    torch.testing.assert_close(class_aware_score(gone, (2,)), left)
