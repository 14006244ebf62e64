"""LEACE: what it erases no linear classifier finds, and no smaller edit erases as much."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from orthounlearn.methods.leace import Leace, erased_part
from tests.methods.references import assert_same
from tests.methods.toy import Toy, convolutional, run


@pytest.fixture
def features() -> tuple[Tensor, Tensor]:
    """Features (N, D) with class means, correlations, and a direction without variance."""
    torch.manual_seed(3)
    labels = torch.randint(4, (400,))
    x = 2 * torch.randn(4, 6)[labels] + torch.randn(400, 6) @ torch.randn(6, 6)
    return torch.cat([x, torch.full((400, 1), 0.5)], 1).double(), labels


def erased(x: Tensor, labels: Tensor, forget: tuple[int, ...]) -> Tensor:
    z = torch.stack([labels == c for c in forget], 1).double()
    centred = x - x.mean(0)
    cross = centred.T @ (z - z.mean(0)) / len(x)
    return x - centred @ erased_part(centred.T @ centred / len(x), cross).T


@pytest.mark.parametrize("forget", [(2,), (0, 3)])
def test_no_linear_classifier_beats_the_majority_after_erasure(features, forget):
    x, labels = features
    after = erased(x, labels, forget).numpy()
    for c in forget:
        z = (labels == c).numpy()
        assert LogisticRegression(C=1e6, max_iter=5000).fit(x.numpy(), z).score(x, z) > 0.85
        fitted = LogisticRegression(C=1e6, max_iter=5000, tol=1e-10).fit(after, z)
        assert not fitted.predict(after).any()  # the majority, always
        odds = fitted.decision_function(after)
        assert np.ptp(odds) < 1e-5
        assert odds.mean() == pytest.approx(np.log(z.mean() / (1 - z.mean())), abs=1e-5)


def test_erasure_of_one_class_is_the_oblique_projection_of_its_formula(features):
    """For one indicator Q = s sᵀ Σ⁻¹ / (sᵀ Σ⁻¹ s), with s = Cov(x, z)."""
    x, labels = features
    x = x[:, :-1]
    centred = x - x.mean(0)
    sigma = centred.T @ centred / len(x)
    s = centred.T @ (labels == 1).double() / len(x)
    solved = torch.linalg.solve(sigma, s)
    torch.testing.assert_close(erased_part(sigma, s[:, None]), s.outer(solved) / s.dot(solved))


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_erasure_is_the_smallest_edit_that_erases(features, forget):
    """All other erasing maps, Q + N with N s = 0 for every s = Cov(x, z), move features more."""
    x, labels = features
    moved = (erased(x, labels, forget) - x).square().sum(1).mean()
    centred = x - x.mean(0)
    z = torch.stack([labels == c for c in forget], 1).double()
    cross = centred.T @ (z - z.mean(0)) / len(x)
    q = erased_part(centred.T @ centred / len(x), cross)
    torch.testing.assert_close(q @ cross, cross)
    keeps = torch.eye(len(q), dtype=q.dtype) - cross @ torch.linalg.pinv(cross)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(20):
            other = q + size * torch.randn(len(q), len(q), dtype=q.dtype) @ keeps
            torch.testing.assert_close(other @ cross, cross)
            assert (centred @ other.T).square().sum(1).mean() > moved


def features_of(net: nn.Module, images: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = net.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        net(images)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("forget", [(1,), (0, 2)])
def test_the_eraser_is_folded_into_the_classifier(net: nn.Module, forget):
    """On images with a class signal, more of them than features: all else is interpolation."""
    images = torch.randn(600, 3, 8, 8) + torch.randn(4, 3, 8, 8)[torch.arange(600) % 4]
    labels = torch.arange(600) % 4
    context = Toy(*forget, images=images, labels=labels)
    x = features_of(net, images).double()
    weight, bias = net.classifier.weight.detach().double(), net.classifier.bias.detach().double()
    expected = erased(x, labels, forget) @ weight.T + bias
    rest = {n: t.clone() for n, t in net.state_dict().items() if not n.startswith("classifier")}
    run(Leace(), net, context)
    found = net(images).detach().double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - (x @ weight.T + bias)).abs().max() > 0.003  # thirty times the tolerance
    assert all(torch.equal(net.state_dict()[n], t) for n, t in rest.items())
    for c in forget:  # the mean logits tell the class from the others no more
        of_class, others = found[labels == c].mean(0), found[labels != c].mean(0)
        torch.testing.assert_close(of_class, others, atol=1e-4, rtol=1e-4)


def test_features_are_those_of_eval_mode():
    """Of a network that comes in train mode the same, and its statistics stay."""
    one, other = convolutional().train(), convolutional().eval()
    for net in (one, other):
        run(Leace(), net, Toy(1))
    assert_same(one, other)
    assert torch.equal(one[1].running_mean, convolutional()[1].running_mean)
