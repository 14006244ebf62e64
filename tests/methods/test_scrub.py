"""SCRUB and its rewinding: passes, losses, and the epoch that is kept."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, LossMethod
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.scrub import Scrub, ScrubRewind, error, frozen_norms
from tests.methods.references import assert_same, divergence
from tests.methods.toy import IMAGES, LABELS, OPTIONS, Toy, convolutional, trained


@pytest.mark.parametrize(("forget_epochs", "passes"), [(0, "rrrr"), (2, "frfrrr"), (9, "frfrfrfr")])
def test_scrub_passes_over_the_forget_set_so_many_times(forget_epochs: int, passes: str):
    phases = Scrub(**(OPTIONS | {"epochs": 4}), forget_epochs=forget_epochs).phases()
    assert "".join(next(iter(phase.sets))[0] for phase in phases) == passes
    assert {phase.epochs for phase in phases} == {1}


def rates(method: LossMethod, lr: float = 0.5) -> list[float]:
    """The learning rate of every pass, with the hooks called as the engine calls them."""
    net = convolutional()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    method.start(net, Toy(1))
    found = []
    for phase in method.phases():
        if phase.begin is not None:
            phase.begin(net, optimizer)
        found.append(optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("kind", [Scrub, ScrubRewind])
def test_learning_rate_falls_after_the_epochs_of_the_authors(kind: type[Scrub]):
    """lr · 0.1^#{m in 3, 5, 9 : m < e} in epoch e = 1, 2, …; both passes of an epoch alike."""
    of_epochs = [0.5 * 0.1 ** sum(m < e for m in (3, 5, 9)) for e in range(1, 12)]
    method = kind(**(OPTIONS | {"epochs": 11}), forget_epochs=4)
    expected = [lr for lr in of_epochs[:4] for _ in "fr"] + of_epochs[4:]
    assert rates(method) == pytest.approx(expected)
    assert rates(method)[:6] == [0.5] * 6


def test_decay_is_an_option():
    method = Scrub(**(OPTIONS | {"epochs": 4}), forget_epochs=0, decay_epochs=[1], decay_rate=0.5)
    assert rates(method) == pytest.approx([0.5, 0.25, 0.25, 0.25])
    method = Scrub(**(OPTIONS | {"epochs": 4}), forget_epochs=0, decay_epochs=[])
    assert rates(method) == [0.5] * 4


def test_decay_is_what_trains():
    """Against two trainings by hand in the plain loop: the second epoch at a tenth of the rate."""
    net = convolutional()
    found = trained(Scrub(**OPTIONS, forget_epochs=0, decay_epochs=[1]), net, 1)
    slower = trained(Scrub(**OPTIONS, forget_epochs=0, decay_epochs=[1], decay_rate=1), net, 1)
    constant = trained(Scrub(**OPTIONS, forget_epochs=0, decay_epochs=[]), net, 1)
    assert_same(slower, constant)
    assert not torch.equal(found[5].weight, constant[5].weight)


def test_scrub_losses_are_those_of_the_paper():
    net = convolutional()
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


def test_scrub_without_its_teacher_is_fine_tuning():
    net = convolutional()
    alone = Scrub(**OPTIONS, forget_epochs=0, ce_weight=1, kl_weight=0)
    assert_same(trained(alone, net, 1), trained(FineTune(**OPTIONS), net, 1))


def test_scrub_leaves_teacher_and_forget_statistics_alone():
    net = convolutional()
    method = Scrub(**OPTIONS, temperature=2.0)
    trained(method, net, 1)
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

    def of(self, *splits: str) -> Batch:
        (split,) = splits
        x = {"forget_train": self.forget_x, "forget_val": self.val_x}[split]
        return x, torch.ones(len(x)).long()

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


@pytest.mark.parametrize(
    "wrong",
    [
        {"forget_epochs": -1},
        {"ce_weight": -1.0},
        {"temperature": 0.0},
        {"decay_epochs": [0, 3]},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        Scrub(**OPTIONS, **wrong)


def test_error_is_that_of_eval_mode_and_modes_come_back():
    """In train mode BatchNorm would tell the images of a batch apart that it maps to one value."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 2))
    net[2].weight.data = torch.tensor([[0.0], [1.0]])
    net[2].bias.data = torch.tensor([0.0, 5.0])  # class 1 if x > -5, x over its running statistics
    net[1].running_mean.fill_(100.0)
    images, labels = torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(3).long()
    before = copy.deepcopy(net.train().state_dict())
    assert error(net, [(images, labels)]) == 0  # all far below; in train mode all are class 1
    assert all(module.training for module in net.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
