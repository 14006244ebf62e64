"""NegGrad+, random labels, ℓ1-sparse and SalUn, against their formulas."""

import copy
from collections.abc import Iterable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import LossMethod
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.gradient_ascent import GradientAscent
from orthounlearn.methods.l1_sparse import L1Sparse
from orthounlearn.methods.neg_grad_plus import NegGradPlus
from orthounlearn.methods.random_label import RandomLabel, relabel
from orthounlearn.methods.salun import SalUn, largest, summed_gradients

IMAGES = torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(40) % 4
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
OPTIONS = {"optimizer": SGD, "epochs": 2, "batch_size": 8, "batch_norm": "train"}


class Toy:
    """40 images of 4 classes, and the plainest loop that keeps the promises of `Phase`."""

    num_classes = 4
    seed = 0
    example = IMAGES[:2]

    def __init__(self, *forget: int) -> None:
        self.forget = forget

    def batches(self, *splits: str, batch_size: int) -> Iterable[tuple[Tensor, Tensor]]:
        of_forget = torch.isin(LABELS, torch.tensor(self.forget))
        chosen = torch.zeros(40, dtype=torch.bool)
        for split in splits:
            chosen |= of_forget == split.startswith("forget")
        return zip(IMAGES[chosen].split(batch_size), LABELS[chosen].split(batch_size), strict=True)

    def fit(self, net: nn.Module, method: LossMethod) -> None:
        net.train()
        if method.batch_norm == "frozen":
            net[1].eval()
        optimizer = method.optimizer(method.parameters(net))
        for phase in method.phases():
            sets = {
                name: list(self.batches(*splits, batch_size=method.batch_size))
                for name, splits in phase.sets.items()
            }
            if phase.begin is not None:
                phase.begin(net, optimizer)
            for step in range(phase.epochs * max(map(len, sets.values()))):
                batch = {name: batches[step % len(batches)] for name, batches in sets.items()}
                optimizer.zero_grad()
                phase.loss(net, batch).backward()
                optimizer.step()
                method.after_step(net, optimizer)


@pytest.fixture
def net() -> nn.Module:
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4)).eval()


def unlearned(method: LossMethod, net: nn.Module, *forget: int) -> nn.Module:
    torch.manual_seed(7)
    return method.unlearn(copy.deepcopy(net), Toy(*forget))


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def gradient(loss: Tensor, net: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


BATCH = {"retain_train": (IMAGES[:8], LABELS[:8]), "forget_train": (IMAGES[8:12], LABELS[8:12])}


@settings(deadline=None, max_examples=20)
@given(alpha=st.floats(0, 1))
def test_neg_grad_plus_goes_between_descent_and_ascent(alpha: float):
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    found = NegGradPlus(**OPTIONS, alpha=alpha).loss(net, BATCH)
    log_p = net(IMAGES[:12]).log_softmax(1)[torch.arange(12), LABELS[:12]]
    expected = -alpha * log_p[:8].mean() + (1 - alpha) * log_p[8:].mean()
    torch.testing.assert_close(found, expected)
    down = gradient(FineTune(**OPTIONS).loss(net, BATCH), net)
    up = gradient(GradientAscent(**OPTIONS).loss(net, BATCH), net)
    torch.testing.assert_close(gradient(found, net), alpha * down + (1 - alpha) * up)


def test_neg_grad_plus_with_frozen_statistics_leaves_them_alone(net: nn.Module):
    frozen = OPTIONS | {"batch_norm": "frozen"}
    after = unlearned(NegGradPlus(**frozen, alpha=0.5), net, 1)
    assert all(torch.equal(b, after.get_buffer(name)) for name, b in net.named_buffers())
    assert not torch.equal(net[0].weight, after[0].weight)


@settings(deadline=None)
@given(classes=st.integers(2, 12), forget=st.sets(st.integers(0, 11)), seed=st.integers(0, 999))
def test_new_labels_are_never_the_true_ones(classes: int, forget: set[int], seed: int):
    torch.manual_seed(seed)
    labels = torch.randint(classes, (64,))
    forgotten = torch.tensor([label in forget for label in range(classes)])
    new = relabel(labels, forgotten)
    assert ((new != labels) == forgotten[labels]).all()
    assert new.min() >= 0
    assert new.max() < classes


def test_new_labels_are_uniform_over_all_other_classes():
    new = relabel(torch.full((9000,), 3), torch.arange(10) % 3 == 0)
    counts = new.bincount(minlength=10)
    assert counts[3] == 0
    assert chisquare(np.delete(counts.numpy(), 3)).pvalue > 1e-3


def test_random_label_trains_on_both_sets_shuffled_together(net: nn.Module):
    method = RandomLabel(**OPTIONS)
    method.start(net, Toy(1, 2))
    (phase,) = method.phases()
    assert phase.sets == {"all": ("forget_train", "retain_train")}
    torch.manual_seed(3)
    found = method.loss(net, {"all": (IMAGES, LABELS)})
    torch.manual_seed(3)
    shifts = torch.randint(1, 4, (40,))
    targets = [(y + s) % 4 if y in (1, 2) else y for y, s in zip(LABELS, shifts, strict=True)]
    torch.testing.assert_close(found, F.cross_entropy(net(IMAGES), torch.tensor(targets)))


@settings(deadline=None)
@given(epochs=st.integers(1, 12), rest=st.integers(0, 11), strength=st.floats(0, 1))
def test_l1_strength_falls_linearly_to_zero(epochs: int, rest: int, strength: float):
    rest %= epochs
    options = OPTIONS | {"epochs": epochs}
    found = L1Sparse(**options, strength=strength, no_l1_epochs=rest).strengths()
    line = np.linspace(strength, 0, epochs - rest + 1)
    np.testing.assert_allclose(found, [*line[:-1], *[0] * rest], atol=1e-12)
    assert found[0] == strength
    assert min(found) >= 0


def test_l1_phases_add_each_epochs_share_of_the_norm(net: nn.Module):
    method = L1Sparse(**(OPTIONS | {"epochs": 4}), strength=0.5, no_l1_epochs=2)
    batch = {"retain_train": (IMAGES, LABELS)}
    plain = F.cross_entropy(net(IMAGES), LABELS)
    norm = sum(np.abs(p.detach().numpy()).sum() for p in net.parameters())
    found = [phase.loss(net, batch) - plain for phase in method.phases()]
    expected = [0.5 * norm, 0.25 * norm, 0, 0]
    np.testing.assert_allclose([f.item() for f in found], expected, rtol=1e-5, atol=1e-6)
    signs = torch.cat([p.detach().sign().flatten() for p in net.parameters()])
    torch.testing.assert_close(gradient(found[1], net), 0.25 * signs, atol=1e-6, rtol=0)


def test_l1_of_strength_zero_is_fine_tuning(net: nn.Module):
    assert_same(unlearned(L1Sparse(**OPTIONS, strength=0), net, 1),
                unlearned(FineTune(**OPTIONS), net, 1))  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_saliency_is_the_sum_of_the_gradients_of_all_images(batch_size: int):
    """Closed form of a linear softmax model: Σ (p − e_y) xᵀ."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 4)).train()
    parameters = list(net.parameters())
    batches = Toy(0, 2).batches("forget_train", batch_size=batch_size)
    weight, bias = summed_gradients(net, parameters, batches)
    chosen = LABELS % 2 == 0
    pixels = IMAGES[chosen].flatten(1)
    errors = net(IMAGES[chosen]).detach().softmax(1) - F.one_hot(LABELS[chosen], 4)
    torch.testing.assert_close(weight, errors.T @ pixels, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bias, errors.sum(0), atol=1e-4, rtol=1e-4)
    assert all(p.grad is None for p in parameters)
    assert net.training


def test_largest_entries_are_ranked_over_all_tensors():
    masks = largest([torch.tensor([[0.1, -9.0], [8.0, 0.2]]), torch.tensor([0.3, -7.0])], share=0.5)
    assert masks[0].tolist() == [[False, True], [True, False]]
    assert masks[1].tolist() == [False, True]


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5), share=st.floats(0.01, 1))
def test_mask_has_exactly_its_share_of_ones(sizes: list[int], share: float):
    masks = largest([torch.zeros(size) for size in sizes], share=share)
    assert sum(int(mask.sum()) for mask in masks) == round(share * sum(sizes))


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.Adam, lr=0.1, weight_decay=0.01)])
def test_salun_moves_nothing_outside_the_mask(net: nn.Module, optimizer):
    optimizers = []
    options = OPTIONS | {"optimizer": lambda p: optimizers.append(optimizer(p)) or optimizers[0]}
    after = unlearned(SalUn(**options, share=0.5), net, 1)
    saliencies = summed_gradients(
        net, list(net.parameters()), Toy(1).batches("forget", batch_size=8)
    )
    threshold = torch.cat([s.abs().flatten() for s in saliencies]).median()
    moved = total = 0
    pairs = zip(net.parameters(), after.parameters(), saliencies, strict=True)
    for before, now, saliency in pairs:
        outside = saliency.abs() <= threshold
        assert torch.equal(before[outside], now[outside])
        moved += int((before != now).sum())
        total += before.numel()
        for moment in optimizers[0].state[now].values():
            if moment.shape == now.shape:
                assert not moment[outside].any()
                assert moment[~outside].any() == (~outside).any()
    assert moved == total // 2


def test_salun_with_all_weights_is_random_label(net: nn.Module):
    assert_same(unlearned(SalUn(**OPTIONS, share=1.0), net, 1),
                unlearned(RandomLabel(**OPTIONS), net, 1))  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (NegGradPlus, {"alpha": 1.5}),
        (L1Sparse, {"strength": -1.0}),
        (L1Sparse, {"no_l1_epochs": 2}),
        (SalUn, {"share": 0.0}),
    ],
)
def test_options_out_of_range_are_refused(kind: type[LossMethod], wrong: dict[str, float]):
    with pytest.raises(UsageError, match=f"method.{next(iter(wrong))}"):
        kind(**OPTIONS, **wrong)
