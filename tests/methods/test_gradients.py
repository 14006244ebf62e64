"""Gradients of single images, against autograd one image at a time; the images drawn."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from orthounlearn.config.build import build
from orthounlearn.engine.context import RequestContext
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.methods.class_aware import ClassAware
from orthounlearn.methods.gradients import draw, mean_over_images, sampled_batches
from tests.methods.references import one_by_one
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy, convolutional


def entropy(logits_K: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits_K, label)[None]


def test_mean_squares_are_those_of_single_images_in_eval_mode():
    net = convolutional()
    expected = one_by_one(net, IMAGES, LABELS, F.cross_entropy)
    for size in (1, 7, 40):
        batches = zip(IMAGES.split(size), LABELS.split(size), strict=True)
        found = mean_over_images(net.train(), batches, losses=entropy, measure=torch.square)
        assert found.keys() == expected.keys()
        for name, gradients in expected.items():
            torch.testing.assert_close(found[name], gradients.square().mean(0))


def test_several_losses_of_an_image_count_apart():
    net = convolutional()
    found = mean_over_images(
        net, [(IMAGES, LABELS)], losses=lambda logits_K, _: logits_K, measure=torch.abs
    )
    for k in range(CLASSES):
        one = one_by_one(net, IMAGES, LABELS, lambda logits, _, k=k: logits[0, k])
        for name in found:
            found[name] = found[name] - one[name].abs().mean(0)
    for rest in found.values():
        torch.testing.assert_close(rest, torch.zeros_like(rest), atol=1e-6, rtol=0)


def test_network_is_left_as_it_was():
    net = convolutional().train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    mean_over_images(net, [(IMAGES, LABELS)], losses=entropy, measure=torch.square)
    ClassAware().prepare(net, Toy(0))
    assert [m.training for m in net] == [True, False, True, True, True, True]
    assert not net[0].weight.requires_grad
    assert net[5].weight.grad is None
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in before)
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(None, [30, 6, 2]), (19, [15, 3, 1]), (4, [3, 1, 1]), (99, [30, 6, 2])],
)
def test_samples_keep_the_shares_of_the_classes(samples: int | None, expected: list[int]):
    labels = torch.tensor([0] * 30 + [1] * 6 + [2] * 2)[torch.randperm(38)]
    images = torch.arange(38.0).view(38, 1, 1, 1)
    context = Toy(1, images=images, labels=labels)
    batches = list(
        sampled_batches(context, "forget_train", "retain_train", samples=samples, batch_size=4)
    )
    drawn = torch.cat([y for _, y in batches])
    numbers = torch.cat([x for x, _ in batches]).flatten().long()
    assert drawn.bincount(minlength=3).tolist() == expected
    assert len(set(numbers.tolist())) == len(numbers)
    assert torch.equal(labels[numbers], drawn)
    assert max(len(y) for _, y in batches) <= 4


def test_samples_are_drawn_and_not_the_first_of_the_data_set(open_shared):
    """With the engine's own context, whose order is that of the data set unless it is shuffled."""
    experiment = open_shared("method=fisher")
    method = build(experiment.config["method"], UnlearningMethod)
    splits = experiment.splits((3,))

    def drawn(seed: int) -> Tensor:
        context = RequestContext(
            experiment, method, splits=splits, seed=seed, kept_folder=Path("/nowhere")
        )
        quotas_K = torch.full((10,), 5.0)
        return torch.cat(
            [x for x, _ in draw(context, ["retain_train"], quotas_K=quotas_K, batch_size=9)]
        )

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert len(first) == 45
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
