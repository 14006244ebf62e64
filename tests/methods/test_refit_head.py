"""The refitted classifier, against another solver and its conditions of optimality."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods import refit_head
from orthounlearn.methods.refit_head import RefitHead
from tests.methods.references import assert_same
from tests.methods.toy import CLASSES, IMAGES, LABELS, Toy, convolutional, run


@pytest.fixture
def blobs() -> tuple[nn.Module, Toy]:
    """Features (N, 6) of four classes that overlap, read as they are."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.arange(120) % CLASSES
    centres = torch.randn(CLASSES, 6, generator=generator)
    images = (centres[labels] + torch.randn(120, 6, generator=generator)).view(-1, 1, 2, 3)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, CLASSES)), Toy(2, images=images, labels=labels)


def test_refit_head_is_the_optimum_that_another_solver_finds(blobs: tuple[nn.Module, Toy]):
    net, context = blobs
    decay = 0.01
    retained = context.labels != 2
    features = context.images[retained].flatten(1).double().numpy()
    features = np.hstack([features, np.ones((len(features), 1))])
    one_hot = np.eye(CLASSES)[context.labels[retained].numpy()]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        rows = flat.reshape(CLASSES, -1)
        logits = features @ rows.T
        logits -= logits.max(1, keepdims=True)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        loss = -(one_hot * np.log(p)).sum(1).mean() + decay / 2 * (flat**2).sum()
        return loss, ((p - one_hot).T @ features / len(features) + decay * rows).ravel()

    best = minimize(objective, np.zeros(CLASSES * 7), jac=True, method="BFGS", tol=1e-9).x
    run(RefitHead(weight_decay=decay, batch_size=11), net, context)
    found = torch.cat([net[1].weight, net[1].bias[:, None]], 1).detach().numpy()
    np.testing.assert_allclose(found, best.reshape(CLASSES, -1), atol=1e-5)


def test_refit_head_pushes_the_absent_class_as_far_as_the_decay_lets_it(net: nn.Module):
    """At the optimum b_c = (share of class c − mean p_c) / λ, for the forgotten class −p/λ."""
    decay, context = 0.02, Toy(2)
    run(RefitHead(weight_decay=decay, batch_size=16), net, context)
    retained = LABELS != 2
    p = net(IMAGES[retained]).double().softmax(1).mean(0)
    share = F.one_hot(LABELS[retained], CLASSES).double().mean(0)
    torch.testing.assert_close(net.classifier.bias.double(), (share - p) / decay, atol=1e-4, rtol=0)
    assert net.classifier.bias[2] < 0


def test_refit_head_forgets_where_it_started(blobs: tuple[nn.Module, Toy]):
    net, context = blobs
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[1].weight.normal_(std=100)
    for each in (net, other):
        run(RefitHead(weight_decay=0.01, batch_size=16), each, context)
    assert torch.equal(net[1].weight, other[1].weight)
    assert (net(context.images).argmax(1) != 2).all()


def test_refit_head_tells_when_it_did_not_converge(blobs, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refit_head, "_ITERATIONS", 2)
    with pytest.raises(UsageError, match="converge"):
        run(RefitHead(weight_decay=0.01, batch_size=16), *blobs)


@pytest.mark.parametrize(
    "wrong", [{"weight_decay": 0.0, "batch_size": 8}, {"batch_size": 0, "weight_decay": 0.1}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, float]):
    with pytest.raises(UsageError, match=rf"method\.{next(iter(wrong))}"):
        RefitHead(**wrong)


def test_features_are_those_of_eval_mode():
    """Of a network that comes in train mode the same, and its statistics stay."""
    one, other = convolutional().train(), convolutional().eval()
    for net in (one, other):
        run(RefitHead(weight_decay=0.01, batch_size=16), net, Toy(1))
    assert_same(one, other)
    assert torch.equal(one[1].running_mean, convolutional()[1].running_mean)
