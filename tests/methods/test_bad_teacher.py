"""Bad Teacher: two teachers, each for its images."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.bad_teacher import BadTeacher, reinitialised
from tests.methods.references import assert_same, divergence, gradient
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy, convolutional, trained

STUDENT = torch.randn(40, 4, generator=torch.Generator().manual_seed(5))


class Backbone(nn.Module):
    """Layers of every kind that must forget what they know."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.conv, self.norm = nn.Conv2d(3, 8, 4), nn.BatchNorm2d(8)
        self.attention, self.layer_norm = nn.MultiheadAttention(8, 2), nn.LayerNorm(8)
        self.head = nn.Linear(8, 4)


def test_incompetent_teacher_knows_nothing_of_the_original():
    net = Backbone()
    for tensor in (*net.parameters(), *net.buffers()):
        tensor.data.add_(1)
    before, fresh = copy.deepcopy(net), reinitialised(net)
    for name, parameter in net.named_parameters():
        assert not torch.isclose(parameter, fresh.get_parameter(name)).any(), name
    assert not fresh.norm.running_mean.any()
    assert (fresh.norm.running_var == 1).all()
    assert_same(before, net)


def test_bad_teacher_sets_the_right_teacher_for_each_image():
    net = convolutional()
    method = BadTeacher(**OPTIONS, retain_share=1.0)
    method.start(net, Toy(1, 3))
    bad = method._incompetent(IMAGES)
    odd = LABELS % 2 == 1
    found = method.loss(lambda _: STUDENT, {"all": (IMAGES, LABELS)})
    apart = np.where(odd, divergence(bad, STUDENT), divergence(net(IMAGES), STUDENT))
    assert found.item() == pytest.approx(apart.mean(), rel=1e-4)
    retained = {"all": (IMAGES[~odd], LABELS[~odd])}
    assert gradient(method.loss(net, retained), net).abs().max() < 1e-7
    assert gradient(method.loss(net, {"all": (IMAGES, LABELS)}), net).abs().max() > 1e-3


def test_bad_teacher_leaves_out_the_rest_of_the_retained_images():
    net = convolutional()
    method = BadTeacher(**OPTIONS, retain_share=0.5)
    method.start(net, Toy(1))
    seen: list[Tensor] = []
    images = torch.arange(400.0).repeat_interleave(192).view(400, 3, 8, 8)
    labels = torch.arange(400) % 4
    method.loss(lambda x: seen.append(x[:, 0, 0, 0].long()) or net(x), {"all": (images, labels)})
    shares = labels[seen[0]].bincount() / 100
    assert shares[1] == 1
    assert ((shares[[0, 2, 3]] - 0.5).abs() < 0.2).all()
    assert (seen[0].diff() > 0).all()


def test_bad_teachers_are_the_same_after_training():
    net = convolutional()
    method = BadTeacher(**OPTIONS)
    torch.manual_seed(7)
    method.start(net, Toy(1))
    bad = method._incompetent
    assert not torch.equal(trained(method, net, 1)[0].weight, net[0].weight)
    assert_same(method._incompetent, bad)
    assert_same(method._competent, net)


@pytest.mark.parametrize("wrong", [{"retain_share": 1.5}])
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        BadTeacher(**OPTIONS, **wrong)
