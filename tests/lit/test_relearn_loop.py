"""The loop of relearning against one written by hand, and what it takes off a network first."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.data.augment import BatchTransform
from orthounlearn.errors import UsageError
from orthounlearn.lit.relearn import ready_to_relearn, relearn
from orthounlearn.metrics.relearn import Curve

STEPS, EVERY = 6, 2
FORGET = (1,)
PLAIN = BatchTransform(mean=(0.0,), std=(1.0,))
EXAMPLE = torch.rand(2, 1, 4, 4)
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


class Batches:
    """One batch of five images of each label, in that order, every time."""

    def __init__(self, *labels: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(256, (len(labels), 5, 1, 4, 4), generator=generator).byte()
        self.found = [(i, torch.full((5,), label)) for i, label in zip(images, labels, strict=True)]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.found)


SETS = {"forget": Batches(1, seed=1), "retain": Batches(0, 2, 3, seed=2)}


def network(*, dropout: float = 0.0) -> nn.Sequential:
    layers = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(6, 4))
    net[1].running_mean.uniform_()
    return net.eval()


def trainer(steps: int) -> Trainer:
    return Trainer(
        max_epochs=-1, max_steps=steps, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


def watch(net: nn.Module, **options: object) -> tuple[Curve, list[nn.Module]]:
    """Relearn; return the curve and what the network was at each of its points."""
    seen: list[nn.Module] = []

    def evaluate(trained: nn.Module) -> tuple[np.ndarray, float]:
        assert not any(module.training for module in trained.modules())
        seen.append(copy.deepcopy(trained))
        return np.array([len(seen) / 10]), len(seen) / 20

    defaults = {
        "loaders": lambda: SETS, "optimizer": SGD, "steps": STEPS, "every": EVERY,
        "batch_norm": "frozen", "trainer": trainer, "transform": PLAIN, "seed": 0,
    }  # fmt: skip
    return relearn(net, evaluate=evaluate, **defaults | options), seen


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_steps_are_those_of_a_loop_by_hand(batch_norm: str):
    net = network()
    curve, seen = watch(net, batch_norm=batch_norm)
    np.testing.assert_array_equal(curve.steps_S, [0, 2, 4, 6])
    np.testing.assert_allclose(curve.forget_S, [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(curve.retain_S, [0.05, 0.1, 0.15, 0.2])

    ours = copy.deepcopy(net)
    optimizer = SGD(ours.parameters())
    assert same(seen[0], net)
    for step in range(STEPS):
        ours.train()
        ours[1].train(batch_norm == "train")
        parts = SETS["forget"].found[0], SETS["retain"].found[step % 3]
        images, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        optimizer.zero_grad()
        F.cross_entropy(ours(images / 255), labels).backward()
        optimizer.step()
        if (step + 1) % EVERY == 0:
            for name, tensor in seen[(step + 1) // EVERY].state_dict().items():
                torch.testing.assert_close(tensor, ours.state_dict()[name], msg=f"{step} {name}")
    moved = not torch.equal(seen[-1][1].running_mean, net[1].running_mean)
    assert moved == (batch_norm == "train")


def test_network_modes_and_random_state_are_left_alone():
    net = network(dropout=0.5)
    net[3].train()  # modes that no single switch would restore
    before, modes = copy.deepcopy(net), [module.training for module in net.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    _, seen = watch(net)
    assert not same(seen[-1], net)
    assert same(net, before)
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_the_seed_decides_every_bit():
    net = network(dropout=0.5)
    first = watch(net)[1]
    torch.rand(3)
    assert all(same(*pair) for pair in zip(first, watch(net)[1], strict=True))
    assert not same(first[-1], watch(net, seed=1)[1][-1])


def test_divergence_ends_the_curve():
    net = network()
    state = torch.get_rng_state()
    curve, seen = watch(net, optimizer=partial(torch.optim.SGD, lr=1e30), every=1)
    assert len(curve.forget_S) == len(curve.retain_S) == STEPS + 1
    assert 0 < len(seen) < STEPS + 1
    for part in (curve.forget_S, curve.retain_S):
        assert np.isfinite(part[: len(seen)]).all()
        assert np.isnan(part[len(seen) :]).all()
    assert torch.equal(torch.get_rng_state(), state)


class Masked(nn.Module):
    """A network whose output for the class is overwritten."""

    def __init__(self, net: nn.Module, *, in_place: bool) -> None:
        super().__init__()
        self.net = net
        self.in_place = in_place

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        logits = logits if self.in_place else logits.clone()
        logits[:, list(FORGET)] = -1e4
        return logits


def ready(net: nn.Module, *, reset_row: bool = False, seed: int = 0) -> nn.Module:
    return ready_to_relearn(net, EXAMPLE, forget=FORGET, reset_row=reset_row, seed=seed)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("around", [lambda net: net, nn.Sequential])
def test_module_that_edits_outputs_is_taken_off(around: Callable, in_place: bool):
    net = network()
    net[-1].bias.data.zero_()  # nothing to lift
    wrapped = around(Masked(net, in_place=in_place)).eval()
    with torch.no_grad():
        torch.testing.assert_close(ready(wrapped)(EXAMPLE), net(EXAMPLE))
        assert (wrapped(EXAMPLE)[:, 1] == -1e4).all()


def test_bias_below_all_others_is_lifted_to_the_lowest_of_them():
    net = network()
    net[-1].bias.data = torch.tensor([0.3, -1e4, -0.2, 0.1])
    lifted = ready(net)
    torch.testing.assert_close(lifted[-1].bias.data, torch.tensor([0.3, -0.2, -0.2, 0.1]))
    assert torch.equal(lifted[-1].weight, net[-1].weight)
    assert net[-1].bias[1] == -1e4


@pytest.mark.parametrize("bias", [-0.1, 2.0])
def test_other_networks_start_as_they_are(bias: float):
    net = network()
    net[-1].bias.data = torch.tensor([0.3, bias, -0.2, 0.1])
    assert same(ready(net), net)


def test_no_bias_no_lift():
    net = network()
    net[-1] = nn.Linear(6, 4, bias=False)
    assert same(ready(net), net)


def test_rows_drawn_anew_are_those_of_the_class_alone():
    net = network()
    net[-1].bias.data[1] = -1e4
    one, other = ready(net, reset_row=True), ready(net, reset_row=True, seed=1)
    assert same(one, ready(net, reset_row=True))
    for fresh in (one, other):
        for name in ("weight", "bias"):
            tensor, old = getattr(fresh[-1], name), getattr(net[-1], name)
            assert torch.equal(tensor[[0, 2, 3]], old[[0, 2, 3]])
            assert tensor[1].abs().max() <= 6**-0.5
    assert not torch.equal(one[-1].weight[1], other[-1].weight[1])
    assert not torch.equal(one[-1].weight[1], net[-1].weight[1])
    assert net[-1].bias[1] == -1e4


def test_network_without_a_linear_classifier():
    net = nn.Sequential(nn.Conv2d(1, 4, 4), nn.Flatten()).eval()
    assert same(ready(net), net)
    assert ready(net) is not net
    with pytest.raises(UsageError, match=r"nn\.Linear"):
        ready(net, reset_row=True)


def test_linear_layers_that_are_no_classifier_are_not_taken_for_one():
    """Of two branches that read the images, only the whole network returns logits."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
            self.what = nn.Conv2d(1, 4, 4)

        def forward(self, images: Tensor) -> Tensor:
            return self.what(images).flatten(1) * self.where(images).mean(1, keepdim=True)

    net = Branches().eval()
    torch.testing.assert_close(ready(net)(EXAMPLE), net(EXAMPLE))
