"""SCRUB, Bad Teacher and DELETE, whose loss is a divergence from a teacher."""

import copy
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.bad_teacher import BadTeacher, reinitialised
from orthounlearn.methods.base import LossMethod
from orthounlearn.methods.delete import Delete
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.scrub import Scrub, ScrubRewind, frozen_norms
from orthounlearn.methods.teachers import frozen_copy, kl_divergence
from tests.methods.test_loss_methods import (
    IMAGES,
    LABELS,
    OPTIONS,
    Toy,
    assert_same,
    gradient,
    net,
    unlearned,
)

__all__ = ["net"]  # a fixture

STUDENT, TEACHER = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(5))


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> np.ndarray:
    """KL(teacher ‖ student) of each image, from scipy."""
    p, q = (softmax(np.asarray(t.detach()) / temperature, axis=1) for t in (teacher, student))
    return rel_entr(p, q).sum(1)


@settings(deadline=None, max_examples=30)
@given(temperature=st.floats(0.5, 8), seed=st.integers(0, 999))
def test_divergence_is_the_mean_over_images(temperature: float, seed: int):
    torch.manual_seed(seed)
    student, teacher = torch.randn(2, 5, 7)
    teacher[0, 2] = -torch.inf
    found = kl_divergence(student, teacher, temperature=temperature)
    expected = temperature**2 * divergence(teacher, student, temperature).mean()
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_teacher_is_deaf(net: nn.Module):
    teacher = frozen_copy(net.train())
    net[0].weight.data.zero_()
    assert teacher[0].weight.any()
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training


@pytest.mark.parametrize(("forget_epochs", "passes"), [(0, "rrrr"), (2, "frfrrr"), (9, "frfrfrfr")])
def test_scrub_passes_over_the_forget_set_so_many_times(forget_epochs: int, passes: str):
    phases = Scrub(**(OPTIONS | {"epochs": 4}), forget_epochs=forget_epochs).phases()
    assert "".join(next(iter(phase.sets))[0] for phase in phases) == passes
    assert {phase.epochs for phase in phases} == {1}


def test_scrub_losses_are_those_of_the_paper(net: nn.Module):
    method = Scrub(**OPTIONS, ce_weight=0.7, kl_weight=0.3, temperature=4.0)
    teacher = copy.deepcopy(net)
    method.start(net, Toy(1))
    nn.init.normal_(net[5].weight)
    student, wanted = net(IMAGES), teacher(IMAGES)
    apart = 16 * divergence(wanted, student, 4.0).mean()
    right = F.cross_entropy(student, LABELS).item()
    batch = (IMAGES, LABELS)
    found = method.loss(net, {"retain_train": batch}).item()
    assert found == pytest.approx(0.7 * right + 0.3 * apart, rel=1e-4)
    found = method.forget_loss(net, {"forget_train": batch}).item()
    assert found == pytest.approx(-apart, rel=1e-4)


def test_scrub_without_its_teacher_is_fine_tuning(net: nn.Module):
    alone = Scrub(**OPTIONS, forget_epochs=0, ce_weight=1, kl_weight=0)
    assert_same(unlearned(alone, net, 1), unlearned(FineTune(**OPTIONS), net, 1))


def test_scrub_leaves_teacher_and_forget_statistics_alone(net: nn.Module):
    method = Scrub(**OPTIONS, temperature=2.0)
    unlearned(method, net, 1)
    assert_same(method._teacher, net)
    nn.init.normal_(net.train()[5].weight)
    before = copy.deepcopy(net)
    method.forget_loss(net, {"forget_train": (IMAGES, LABELS)}).backward()
    assert_same(before, net)
    assert all(module.training for module in net.modules())


def test_modes_of_norms_come_back_as_they_were():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm2d(3).eval())
    with frozen_norms(net):
        assert [module.training for module in net] == [False, True, False]
    assert [module.training for module in net] == [True, True, False]


class Scripted(Toy):
    """Images of one pixel x, all of class 1. `fit` sets the threshold above which x is class 1."""

    forget_x = torch.arange(10).view(10, 1) / 10

    def __init__(self, val_x: list[float], thresholds: list[float]) -> None:
        self.forget = (1,)
        self.val_x = torch.tensor(val_x).view(-1, 1)
        self.thresholds = iter(thresholds)

    def batches(self, split: str, *, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
        x = {"forget_train": self.forget_x, "forget_val": self.val_x}[split]
        return zip(x.split(batch_size), torch.ones(len(x)).long().split(batch_size), strict=True)

    def fit(self, net: nn.Module, method: LossMethod) -> None:
        net.train()
        for phase in method.phases():
            if phase.begin is not None:
                phase.begin(net, torch.optim.SGD(net.parameters(), lr=1))
            over_retain = "retain_train" in phase.sets
            net.bias.data[0] = next(self.thresholds) if over_retain else 99.0


@pytest.mark.parametrize(
    ("val_x", "epoch"),
    [
        ([0.1, 0.9], 3),  # half of them below 0.75: epochs 2 and 3 are as close, 3 is later
        ([0.1, 0.8, 0.9, 0.9, 0.9], 0),
        ([0.1] * 9 + [0.9], 1),
        ([0.1, 0.1, 0.1, 0.9], 4),  # 75 %: nothing to rewind
    ],
)
def test_rewind_finds_the_epoch_with_the_error_of_unseen_images(val_x: list[float], epoch: int):
    """Errors on D_f are 20, 90, 50, 50 and 80 % by hand: the share of 0.0, 0.1, ... 0.9 below."""
    thresholds = [0.15, 0.85, 0.45, 0.48, 0.75]
    net = nn.Linear(1, 2)
    net.weight.data = torch.tensor([[0.0], [1.0]])
    net.bias.data.zero_()
    method = ScrubRewind(**(OPTIONS | {"epochs": 5}), forget_epochs=3)
    after = method.unlearn(net, Scripted(val_x, thresholds))
    assert after.bias[0] == torch.tensor(thresholds)[epoch]
    assert after.training


def test_delete_shares_out_the_true_class_among_the_others(net: nn.Module):
    method = Delete(**OPTIONS)
    method.start(net, Toy(1))
    p = net(IMAGES).detach().softmax(1)
    target = p * (1 - F.one_hot(LABELS, 4))
    target /= target.sum(1, keepdim=True)
    student = STUDENT.clone().requires_grad_()
    loss = method.loss(lambda _: student, {"forget_train": (IMAGES, LABELS)})
    assert loss.item() == pytest.approx(divergence(target.log(), student).mean(), rel=1e-4)
    (found,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(found, (student.softmax(1) - target).detach() / 40)
    perfect = target.clamp(min=1e-30).log().requires_grad_()
    loss = method.loss(lambda _: perfect, {"forget_train": (IMAGES, LABELS)})
    assert torch.autograd.grad(loss, perfect)[0].abs().max() < 1e-7


def test_delete_reads_the_forget_set_alone_and_keeps_the_statistics(net: nn.Module):
    method = Delete(**(OPTIONS | {"batch_norm": "frozen"}))
    after = unlearned(method, net, 1)
    assert all(torch.equal(b, after.get_buffer(name)) for name, b in net.named_buffers())
    assert {split for phase in method.phases() for split in phase.sets} == {"forget_train"}
    assert_same(method._teacher, net)


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


def test_bad_teacher_sets_the_right_teacher_for_each_image(net: nn.Module):
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


def test_bad_teacher_leaves_out_the_rest_of_the_retained_images(net: nn.Module):
    method = BadTeacher(**OPTIONS, retain_share=0.5)
    method.start(net, Toy(1))
    seen: list[Tensor] = []
    images = torch.arange(400.0).repeat_interleave(48).view(400, 3, 4, 4)
    labels = torch.arange(400) % 4
    method.loss(lambda x: seen.append(x[:, 0, 0, 0].long()) or net(x), {"all": (images, labels)})
    shares = labels[seen[0]].bincount() / 100
    assert shares[1] == 1
    assert ((shares[[0, 2, 3]] - 0.5).abs() < 0.2).all()
    assert (seen[0].diff() > 0).all()


def test_bad_teachers_are_the_same_after_training(net: nn.Module):
    method = BadTeacher(**OPTIONS)
    torch.manual_seed(7)
    method.start(net, Toy(1))
    bad = method._incompetent
    assert not torch.equal(unlearned(method, net, 1)[0].weight, net[0].weight)
    assert_same(method._incompetent, bad)
    assert_same(method._competent, net)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Scrub, {"forget_epochs": -1}),
        (Scrub, {"ce_weight": -1.0}),
        (Scrub, {"temperature": 0.0}),
        (BadTeacher, {"retain_share": 1.5}),
    ],
)
def test_options_out_of_range_are_refused(kind: type[LossMethod], wrong: dict[str, float]):
    with pytest.raises(UsageError, match=f"method.{next(iter(wrong))}"):
        kind(**OPTIONS, **wrong)
