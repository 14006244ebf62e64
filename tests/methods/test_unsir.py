"""UNSIR: what noise it learns, and how it impairs and repairs with it."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.unsir import Unsir, learn_noise
from tests.methods.references import assert_same
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy, convolutional, linear

BATCH = {"retain_train": (IMAGES[:8], LABELS[:8])}
SHORT = {"noise_images": 6, "noise_steps": 5}


def test_noise_is_what_the_network_is_most_wrong_about():
    net = convolutional()
    before = copy.deepcopy(net.train())
    labels = torch.full((16,), 2)
    start = torch.randn(16, 3, 8, 8)
    noise = learn_noise(net, start, labels, steps=40, penalty=0.1)
    assert F.cross_entropy(net.eval()(noise), labels) > F.cross_entropy(net(start), labels)
    assert noise.square().sum() < start.square().sum()
    assert not noise.requires_grad
    assert_same(before, net)
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_first_step_of_the_noise_is_the_formulas(penalty: float):
    """Adam's first step is lr · sign: of 2λx/B − (p − e_y)W/B for a linear softmax model."""
    net = linear().train()
    labels = torch.full((8,), 1)
    start = IMAGES[:8]
    noise = learn_noise(net, start, labels, steps=1, penalty=penalty)
    errors = net(start).softmax(1) - F.one_hot(labels, 4)
    slope = 2 * penalty * start / 8 - (errors @ net[1].weight).view_as(start) / 8
    clear = slope.abs() > 1e-5
    torch.testing.assert_close(noise[clear], (start - 0.1 * slope.sign())[clear], atol=1e-3, rtol=0)
    assert clear.float().mean() > 0.9
    assert net.training


def test_noise_modes_come_back():
    net = convolutional()
    net.train()[1].eval()
    learn_noise(net, IMAGES[:2], LABELS[:2], steps=1, penalty=0)
    assert [module.training for module in net] == [True, False, True, True, True, True]


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_noise_starts_as_standard_normal_images(forget):
    method = Unsir(**OPTIONS, noise_images=200, noise_steps=0)
    method.start(convolutional(), Toy(*forget))
    noise = method._noise
    assert noise.shape == (200 * len(forget), 3, 8, 8)
    assert abs(noise.mean()) < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert len({image.sum().item() for image in noise}) == len(noise)


@pytest.mark.parametrize("forget", [(2,), (0, 3)])
def test_impairing_shows_noise_of_each_forgotten_class_under_its_label(forget):
    net = convolutional()
    # Without a penalty, under which the noise of all classes soon looks alike.
    method = Unsir(**OPTIONS, **SHORT, noise_penalty=0.0, retain_share=1.0, noise_ratio=10.0)
    method.start(net, Toy(*forget))
    seen: list[Tensor] = []
    logits = torch.randn(1000, 4)
    found = method.loss(lambda x: seen.append(x) or logits[: len(x)], BATCH)
    (images,) = seen
    assert torch.equal(images[:8], IMAGES[:8])
    assert len(images) == 8 + 10 * 8 * len(forget)
    same = (images[8:, None] == method._noise).flatten(2).all(2)
    which = same.int().argmax(1)
    assert same.any(1).all()
    labels = torch.tensor(forget)[which // 6]  # six images of the first class, then the second's
    assert set(labels.tolist()) == set(forget)
    expected = F.cross_entropy(logits[: len(images)], torch.cat([LABELS[:8], labels]))
    torch.testing.assert_close(found, expected)
    for index, label in enumerate(forget):
        own = net(method._noise[6 * index : 6 * index + 6])
        assert F.cross_entropy(own, torch.full((6,), label)) > F.cross_entropy(
            own, torch.full((6,), 1)
        )


def test_share_of_the_retained_images_takes_part_with_noise_in_proportion():
    net = convolutional()
    method = Unsir(**OPTIONS, **SHORT, retain_share=0.25, noise_ratio=0.5)
    method.start(net, Toy(1))
    seen: list[int] = []
    images, labels = torch.randn(1000, 3, 8, 8), torch.zeros(1000).long()
    method.loss(lambda x: seen.append(len(x)) or net(x), {"retain_train": (images, labels)})
    method.repair_loss(lambda x: seen.append(len(x)) or net(x), {"retain_train": (images, labels)})
    impaired, repaired = seen
    assert 200 < repaired < 300
    assert 300 < impaired < 450


def test_repairing_is_a_new_optimiser_on_retained_images():
    """Against two loops with an Adam each, on the same batches and random numbers."""
    net = convolutional()
    options = OPTIONS | {"optimizer": lambda p: torch.optim.Adam(p, lr=0.02), "batch_size": 30}
    method = Unsir(**options, **SHORT, repair_lr=0.005)
    torch.manual_seed(3)
    after = method.unlearn(copy.deepcopy(net), Toy(1))

    torch.manual_seed(3)
    method.start(net, Toy(1))
    net.train()
    retained = LABELS != 1
    batch = {"retain_train": (IMAGES[retained], LABELS[retained])}
    for loss, lr in ((method.loss, 0.02), (method.repair_loss, 0.005)):
        optimizer = torch.optim.Adam(net.parameters(), lr=lr)
        for _ in range(2):
            optimizer.zero_grad()
            loss(net, batch).backward()
            optimizer.step()
    assert_same(net, after)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retain_share": 0.0},
        {"repair_lr": 0.0},
        {"noise_ratio": -1.0},
        {"noise_images": 0},
        {"noise_steps": -1},
        {"noise_penalty": -0.1},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        Unsir(**OPTIONS, **wrong)
