"""Fisher forgetting: the variance of its noise, by definition and in closed form."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.fisher import Fisher
from tests.methods.references import values
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy, convolutional, linear, perceptron, run

FADING = IMAGES * torch.logspace(-2, 0.2, 192).view(3, 8, 8)
"""From faint pixels to bright ones: of each layer, 1/F of some weights lies above its cap."""
FADING[LABELS == 1] *= 3  # the class that is forgotten, which must not count


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
        values(run(Fisher(batch_size=40, **options), net(), Toy(1, images=FADING, seed=seed)))
        for seed in range(seeds)
    ]
    return {name: torch.stack([r[name] for r in runs]) - start[name] for name in start}


def test_fisher_noise_has_the_variance_of_its_definition():
    images, _ = Toy(1, images=FADING).of("retain_train")
    expected = variance_by_definition(perceptron(), images, 0.01, ["3.weight", "3.bias"])
    noise = noise_of(perceptron, seeds=100, alpha=0.01)
    for name, v in expected.items():
        scaled = noise[name] / v.sqrt()
        squares = scaled.square().view(100, len(v), -1)
        # By rows the factor 10 and the caps show, by columns the mean over dimension 1.
        for found in (squares.mean((0, 2)), squares.mean((0, 1))):
            count = squares.numel() / len(found)
            assert (found - 1).abs().max() < 5 * math.sqrt(2 / count)
        assert scaled.mean().abs() < 5 / math.sqrt(scaled.numel())


def test_fisher_of_a_softmax_regression_in_closed_form():
    """F = E p_y (1 − p_y) x_d², since Σ_y′ p_y′ (e_y′ − p)_y² = p_y (1 − p_y)."""
    net = linear()
    images, _ = Toy(1, images=FADING).of("retain_train")
    p, x = net(images).softmax(1).detach(), images.flatten(1)
    fisher = (p * (1 - p)).T @ x.square() / len(x)
    expected = variance_by_definition(net, images, 1.0, ["1.weight", "1.bias"])["1.weight"]
    by_hand = 10 * (1 / (fisher + 1e-8)).clamp(max=1e2).mean(1, keepdim=True).expand_as(fisher)
    torch.testing.assert_close(expected, by_hand)


def test_variance_of_a_kernel_is_averaged_over_its_inputs_alone():
    """By hand on a kernel (1, 2, 1, 2): each position keeps its own mean over the two inputs."""
    fisher = torch.tensor([0.5, 0.25, 0.125, 0.1]).view(1, 2, 1, 2)
    found = Fisher(alpha=2.0)._variance(fisher, of_head=False)
    expected = torch.tensor([2 * (2 + 8) / 2, 2 * (4 + 10) / 2])
    torch.testing.assert_close(found, expected.expand(1, 2, 1, 2), rtol=1e-6, atol=0)


def test_variance_of_a_known_fisher_matrix():
    """1/(F + 10⁻⁸), cut to 10³, and to 10² in the classifier; 10⁻⁸ shows in its sixth digit."""
    fisher = torch.tensor([0.0, 2e-3, 0.5], dtype=torch.float64)[:, None]
    for of_head, cap, louder in ((False, 1e3, 1), (True, 1e2, 10)):
        by_hand = [min(1 / (f + 1e-8), cap) * 3 * louder for f in (0.0, 2e-3, 0.5)]
        found = Fisher(alpha=3.0)._variance(fisher, of_head=of_head)[:, 0].tolist()
        assert found == pytest.approx(by_hand, rel=1e-8)


def test_fisher_without_noise_changes_nothing_and_the_seed_fixes_it():
    before = values(convolutional())
    for name, value in values(run(Fisher(alpha=0), convolutional().train(), Toy(1))).items():
        assert torch.equal(value, before[name])
    one, same, other = (
        values(run(Fisher(alpha=1e-3), convolutional().train(), Toy(1, seed=s))) for s in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert all(not torch.equal(one[name], other[name]) for name in one)


def test_forgotten_row_is_zeroed_only_on_demand():
    plain = noise_of(linear, seeds=60, alpha=1e-9)
    zeroed = noise_of(linear, seeds=60, alpha=1e-9, forgotten_row="zeroed")
    start = values(linear())
    for name in plain:
        assert plain[name].abs().max() < 0.1
        row = zeroed[name][:, 1] + start[name][1]
        assert abs(row.mean()) < 5 * math.sqrt(1e-3 / row.numel())
        assert row.square().mean() == pytest.approx(1e-3, rel=5 * math.sqrt(2 / row.numel()))
        assert torch.equal(zeroed[name][:, [0, 2, 3]], plain[name][:, [0, 2, 3]])


@pytest.mark.parametrize("wrong", [{"alpha": -1}, {"forgotten_row": "gone"}])
def test_options_out_of_range_are_refused(wrong: dict[str, object]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        Fisher(**wrong)
