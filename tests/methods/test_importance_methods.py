"""Methods that weigh parameters or channels by gradients, against autograd one image at a time."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.class_aware import ClassAware, class_aware_score
from orthounlearn.methods.fisher import Fisher
from orthounlearn.methods.gradients import mean_over_images, sampled_batches
from orthounlearn.methods.influence import Influence
from orthounlearn.methods.ssd import LFSSD, SSD

CLASSES = 3
IMAGES = torch.randn(24, 2, 4, 4, generator=torch.Generator().manual_seed(5))
LABELS = torch.arange(24) % CLASSES


class Toy:
    """A context of a few images, in their order."""

    num_classes = CLASSES

    def __init__(
        self, *forget: int, images: Tensor = IMAGES, labels: Tensor = LABELS, seed: int = 0
    ) -> None:
        self.forget, self.images, self.labels, self.seed = forget, images, labels, seed
        self.example = images[:2]

    def batches(
        self, split: str, *, batch_size: int, **_: object
    ) -> Iterable[tuple[Tensor, Tensor]]:
        chosen = torch.isin(self.labels, torch.tensor(self.forget)) == split.startswith("forget")
        parts = (t[chosen].split(batch_size) for t in (self.images, self.labels))
        return zip(*parts, strict=True)

    def of(self, split: str) -> tuple[Tensor, Tensor]:
        (batch,) = self.batches(split, batch_size=10_000)
        return batch


def convolutional() -> nn.Sequential:
    """Every kind of parameter: a kernel, BatchNorm's, a linear layer's; an in-place activation."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES),
    )  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.ReLU(), nn.Linear(5, CLASSES))


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, CLASSES))


Loss = Callable[[Tensor, Tensor], Tensor]


def one_by_one(net: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Return the gradient of each image (N, …), by one backward pass each."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    rows = [
        torch.autograd.grad(loss(net(image[None]), label[None]), parameters)
        for image, label in zip(images, labels, strict=True)
    ]
    return {
        name: torch.stack(column)
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def run(method, net: nn.Module, context: Toy) -> nn.Module:
    method.prepare(net, context)
    return method.unlearn(net, context)


def values(net: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def entropy(logits_K: Tensor, label: Tensor) -> Tensor:
    return F.cross_entropy(logits_K, label)[None]


# Gradients of single images.


def test_mean_squares_are_those_of_single_images_in_eval_mode():
    net = convolutional()
    expected = one_by_one(net.eval(), IMAGES, LABELS, F.cross_entropy)
    for size in (1, 7, 24):
        batches = zip(IMAGES.split(size), LABELS.split(size), strict=True)
        found = mean_over_images(net.train(), batches, losses=entropy, measure=torch.square)
        assert found.keys() == expected.keys()
        for name, gradients in expected.items():
            torch.testing.assert_close(found[name], gradients.square().mean(0))


def test_several_losses_of_an_image_count_apart():
    net = convolutional().eval()
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


# SSD and LFSSD.


def dampened(theta: Tensor, of_all: Tensor, of_forget: Tensor, alpha: float, lam: float) -> Tensor:
    result = theta.clone()
    for index in np.ndindex(*theta.shape):
        if of_forget[index] > alpha * of_all[index]:
            result[index] *= min(lam * float(of_all[index] / of_forget[index]), 1.0)
    return result


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
@pytest.mark.parametrize("kind", [SSD, LFSSD])
def test_dampening_of_a_linear_model_by_hand(kind: type[SSD], forget: tuple[int, ...]):
    """∇_W CE = (p − e_y) xᵀ and ∇_W ‖f‖² = 2 f xᵀ, so both importances are products of moments."""
    net, context = linear(), Toy(*forget)
    before = values(net)

    def importance(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1)
        f = x @ before["1.weight"].T + before["1.bias"]
        if kind is SSD:
            outer = f.softmax(1) - F.one_hot(labels, CLASSES)
            power = 2
        else:
            outer, power = 2 * f, 1
        g = outer.abs() ** power
        return g.T @ (x.abs() ** power) / len(x), g.mean(0)

    of_all, of_forget = importance(IMAGES, LABELS), importance(*context.of("forget_train"))
    after = values(run(kind(alpha=1.1, dampening=0.7), net, context))
    changed = 0
    for name, all_, forget_ in zip(before, of_all, of_forget, strict=True):
        expected = dampened(before[name], all_, forget_, 1.1, 0.7)
        torch.testing.assert_close(after[name], expected)
        changed += int((expected != before[name]).sum())
    assert changed > 5


@pytest.mark.parametrize("kind", [SSD, LFSSD])
def test_importance_does_not_depend_on_the_batch_size(kind: type[SSD]):
    one, many = (run(kind(alpha=1.2, batch_size=size), convolutional(), Toy(1)) for size in (1, 24))
    assert any(
        not torch.equal(a, b)
        for a, b in zip(values(one).values(), values(convolutional()).values(), strict=True)
    )
    for a, b in zip(one.parameters(), many.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=15, deadline=None)
@given(alpha=st.floats(0.5, 5), lam=st.floats(0.01, 20), kind=st.sampled_from([SSD, LFSSD]))
def test_no_weight_grows_or_changes_its_sign(alpha: float, lam: float, kind: type[SSD]):
    net = linear()
    before = values(net)
    after = values(run(kind(alpha=alpha, dampening=lam, batch_size=24), net, Toy(0)))
    for name, old in before.items():
        assert (after[name].abs() <= old.abs()).all()
        assert (after[name] * old >= 0).all()


def test_no_weight_is_chosen_beyond_the_share_of_the_class():
    """I_D holds D_f's part: I_f / I_D never exceeds |D| / |D_f|, 3 here."""
    net = linear()
    before = values(net)
    for name, value in values(run(SSD(alpha=3.001), net, Toy(0))).items():
        assert torch.equal(value, before[name])


def test_a_weight_without_any_gradient_is_left_alone():
    images = IMAGES.clone()
    images[:, 0, 0, 0] = 0
    net = linear()
    before = net[1].weight.detach().clone()
    run(SSD(alpha=1.01), net, Toy(1, images=images))
    assert torch.equal(net[1].weight[:, 0], before[:, 0])
    assert not torch.equal(net[1].weight, before)
    assert net[1].weight.isfinite().all()


# Fisher forgetting.


def variance_by_definition(
    net: nn.Module, images: Tensor, alpha: float, head: Sequence[str]
) -> dict[str, Tensor]:
    """v from F = E Σ_y p_y (∇ log p_y)², with one backward pass for each image and label."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    fisher = {name: torch.zeros_like(p) for name, p in zip(names, parameters, strict=True)}
    for image in images:
        log_p = net(image[None]).log_softmax(1)[0]
        for y in range(CLASSES):
            gradients = torch.autograd.grad(log_p[y], parameters, retain_graph=True)
            for name, g in zip(names, gradients, strict=True):
                fisher[name] += log_p[y].detach().exp() * g**2 / len(images)
    found = {}
    for name, f in fisher.items():
        v = alpha * torch.minimum(1 / (f + 1e-8), torch.tensor(1e2 if name in head else 1e3))
        if f.ndim > 1:
            v = v.mean(1, keepdim=True).expand_as(v)
        found[name] = v * 10 if name in head or f.ndim == 1 else v
    return found


def noise_of(net: Callable[[], nn.Module], *, seeds: int, **options: object) -> dict[str, Tensor]:
    """Return the changes (seeds, …) of every parameter by Fisher forgetting of class 1."""
    start = values(net())
    runs = [
        values(run(Fisher(batch_size=24, **options), net(), Toy(1, seed=seed)))
        for seed in range(seeds)
    ]
    return {name: torch.stack([r[name] for r in runs]) - start[name] for name in start}


def test_fisher_noise_has_the_variance_of_its_definition():
    images, _ = Toy(1).of("retain_train")
    expected = variance_by_definition(perceptron(), images, 0.01, ["3.weight", "3.bias"])
    noise = noise_of(perceptron, seeds=100, alpha=0.01)
    for name, v in expected.items():
        scaled = noise[name] / v.sqrt()
        # Row by row: the factor 10, the caps and the mean over dimension 1 all show there.
        by_row = scaled.flatten(2).square().mean((0, 2)) if v.ndim > 1 else scaled.square().mean(0)
        count = 100 * (v.shape[1] if v.ndim > 1 else 1)
        assert (by_row - 1).abs().max() < 5 * math.sqrt(2 / count)
        assert scaled.mean().abs() < 5 / math.sqrt(scaled.numel())


def test_fisher_of_a_softmax_regression_in_closed_form():
    """F = E p_y (1 − p_y) x_d², since Σ_y′ p_y′ (e_y′ − p)_y² = p_y (1 − p_y)."""
    net = linear()
    images, _ = Toy(1).of("retain_train")
    p, x = net(images).softmax(1).detach(), images.flatten(1)
    fisher = (p * (1 - p)).T @ x.square() / len(x)
    expected = variance_by_definition(net, images, 1.0, ["1.weight", "1.bias"])["1.weight"]
    by_hand = 10 * (1 / (fisher + 1e-8)).clamp(max=1e2).mean(1, keepdim=True).expand_as(fisher)
    torch.testing.assert_close(expected, by_hand)


def test_fisher_without_noise_changes_nothing_and_the_seed_fixes_it():
    before = values(convolutional())
    for name, value in values(run(Fisher(alpha=0), convolutional(), Toy(1))).items():
        assert torch.equal(value, before[name])
    one, same, other = (
        values(run(Fisher(alpha=1e-3), convolutional(), Toy(1, seed=s))) for s in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_forgotten_row_is_zeroed_only_on_demand():
    kept = noise_of(linear, seeds=60, alpha=1e-9)
    zeroed = noise_of(linear, seeds=60, alpha=1e-9, forgotten_row="zeroed")
    start = values(linear())
    for name in kept:
        assert kept[name].abs().max() < 0.1
        row = zeroed[name][:, 1] + start[name][1]
        assert abs(row.mean()) < 5 * math.sqrt(1e-3 / row.numel())
        assert row.square().mean() == pytest.approx(1e-3, rel=5 * math.sqrt(2 / row.numel()))
        assert torch.equal(zeroed[name][:, [0, 2]], kept[name][:, [0, 2]])


# Influence.


def test_influence_step_is_the_one_of_rank_one_updates():
    """WoodFisher's recursion for (κI + 1/N Σ g gᵀ)⁻¹, every image updating the whole inverse."""
    alpha, damping, context = 3.0, 0.05, Toy(1, images=IMAGES.double())
    net = perceptron().double()
    theta = torch.cat([p.detach().flatten() for p in net.parameters()])

    def gradients(split: str) -> Tensor:
        rows = one_by_one(net, *context.of(split), F.cross_entropy)
        return torch.cat([g.flatten(1) for g in rows.values()], 1)

    forget, retain = gradients("forget_train"), gradients("retain_train")
    inverse = torch.eye(len(theta), dtype=torch.float64) / damping
    for g in retain:
        image = inverse @ g
        inverse -= image.outer(image) / (len(retain) + g @ image)
    right = len(forget) / len(IMAGES) * (forget.mean(0) - retain.mean(0))
    expected = theta + alpha * inverse @ right

    after = run(Influence(alpha=alpha, damping=damping, batch_size=5), net, context)
    found = torch.cat([p.detach().flatten() for p in after.parameters()])
    step = (expected - theta).norm()
    assert step > 0.01
    assert (found - expected).norm() < 1e-4 * step


def test_influence_runs_in_eval_mode_through_batch_norm():
    net = convolutional().double().train()
    context = Toy(2, images=IMAGES.double())
    reference = convolutional().double().eval()
    rows = {
        split: one_by_one(reference, *context.of(split), F.cross_entropy)
        for split in ("forget_train", "retain_train")
    }
    forget, retain = (torch.cat([g.flatten(1) for g in r.values()], 1) for r in rows.values())
    matrix = retain.T @ retain / len(retain) + torch.eye(forget.shape[1])
    direction = torch.linalg.solve(matrix, (forget.mean(0) - retain.mean(0)) / 3)
    before = torch.cat([p.detach().flatten() for p in reference.parameters()])
    after = run(Influence(alpha=2.0), net, context)
    assert after.training
    found = torch.cat([p.detach().flatten() for p in after.parameters()])
    torch.testing.assert_close(found, before + 2 * direction, rtol=1e-4, atol=1e-6)


def test_influence_without_a_step_changes_nothing_and_with_one_forgets():
    before = values(convolutional())
    for name, value in values(run(Influence(alpha=0), convolutional(), Toy(1))).items():
        assert torch.equal(value, before[name])
    images, labels = Toy(1).of("forget_train")
    old, new = convolutional().eval(), run(Influence(alpha=1.0), convolutional(), Toy(1)).eval()
    assert F.cross_entropy(new(images), labels) > F.cross_entropy(old(images), labels)


# Class-aware importance.


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


@pytest.mark.parametrize("threshold", [0.0, 2e-3])
def test_needs_are_shares_of_images_at_the_pixel_that_needs_most(threshold: float):
    net = convolutional().eval()
    needs = torch.zeros(CLASSES, 3)
    for c in range(CLASSES):
        shares = torch.zeros(3, 4, 4)
        for image in (x for x, label in zip(IMAGES, LABELS, strict=True) if label == c):
            a = net[:2](image[None]).detach().requires_grad_()
            loss = F.cross_entropy(net[3:](a.relu()), torch.tensor([c]))
            (gradient,) = torch.autograd.grad(loss, a)
            shares += ((a * gradient).abs() > threshold).float()[0] / 8
        needs[c] = shares.amax((1, 2))
    method = ClassAware(images_per_class=8, threshold=threshold, rate=0.1)
    method.prepare(net, Toy(1))
    torch.testing.assert_close(method._needs[0], needs)
    assert 0 < needs.mean() < 1

    score = needs[1] * (1 - (needs[0] + needs[2]) / 2)
    torch.testing.assert_close(class_aware_score(needs, (1,)), score)
    before = net[1].weight.detach().clone()
    method.unlearn(net, Toy(1))
    factors = torch.ones(3)
    factors[score.argmax()] = 0
    torch.testing.assert_close(net[1].weight.detach(), before * factors)


@settings(deadline=None)
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


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: SSD(alpha=0), "method.alpha"),
        (lambda: LFSSD(dampening=-1), "method.dampening"),
        (lambda: SSD(samples=0), "method.samples"),
        (lambda: SSD(batch_size=0), "method.batch_size"),
        (lambda: Fisher(alpha=-1), "method.alpha"),
        (lambda: Fisher(forgotten_row="gone"), "method.forgotten_row"),
        (lambda: Influence(damping=0), "method.damping"),
        (lambda: Influence(alpha=-1), "method.alpha"),
        (lambda: ClassAware(images_per_class=0), "method.images_per_class"),
        (lambda: ClassAware(threshold=-1), "method.threshold"),
        (lambda: ClassAware(rate=0), "method.rate"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], option: str):
    with pytest.raises(UsageError, match=option):
        make()
