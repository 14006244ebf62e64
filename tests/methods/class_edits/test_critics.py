"""Critics: the batch of regressions is what separate ones, trained by autograd, would be."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.class_edits.critics import Critics

CLASSES, WIDTHS = 4, {"narrow": 3, "wide": 7}
WEIGHTS = torch.tensor([1.0] * 30 + [0.25] * 30)


def features(seed: int) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(seed)
    labels = torch.randint(CLASSES, (60,))
    place = {layer: torch.randn(CLASSES, width) for layer, width in WIDTHS.items()}
    return {k: 3 * v[labels] + torch.randn(60, v.shape[1]) for k, v in place.items()}, labels


def taught(*, rounds: int = 1) -> Critics:
    read, labels = features(0)
    critics = Critics(read, CLASSES)
    for _ in range(rounds):
        critics.learn(read, labels, WEIGHTS)
    return critics


@pytest.mark.parametrize("layer", WIDTHS)
def test_each_is_a_softmax_regression_by_adam(layer: str):
    read, labels = features(0)
    units = (read[layer] - read[layer].mean(0)) / read[layer].std(0)
    reader = nn.Linear(WIDTHS[layer], CLASSES)
    nn.init.zeros_(reader.weight)
    nn.init.zeros_(reader.bias)
    adam = torch.optim.Adam(reader.parameters(), lr=1e-2)
    for _ in range(12 * 5):
        errors = F.cross_entropy(reader(units), labels, reduction="none")
        loss = (errors * WEIGHTS).mean() + 1e-3 * reader.weight.square().sum()
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
    ours = labels == 1
    beliefs = reader(units[ours]).softmax(1)[:, 1].clamp(max=1 - 1e-3)
    found = taught(rounds=5).recognition({k: v[ours] for k, v in read.items()}, 1)[layer]
    torch.testing.assert_close(found, -torch.log(1 - beliefs).mean(), atol=1e-5, rtol=1e-4)


def test_gradient_goes_to_the_features_and_not_to_the_critics():
    critics = taught(rounds=20)
    read, labels = features(1)
    leaves = {k: v[labels == 2].clone().requires_grad_() for k, v in read.items()}
    torch.autograd.backward(sum(critics.recognition(leaves, 2).values(), torch.zeros(())))
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves.values())
    again = {k: v - 0.5 * v.grad / v.grad.norm() for k, v in leaves.items()}
    before, after = critics.recognition(leaves, 2), critics.recognition(again, 2)
    assert all(after[layer] < before[layer] for layer in WIDTHS)


def test_an_untaught_critic_has_no_opinion():
    read, labels = features(0)
    found = Critics(read, CLASSES).recognition({k: v[labels == 0] for k, v in read.items()}, 0)
    for value in found.values():
        assert value.item() == pytest.approx(-torch.log(torch.tensor(1 - 1 / CLASSES)).item())


def test_random_stream_is_left_where_it_was():
    state = torch.get_rng_state()
    taught()
    before = torch.get_rng_state()
    torch.set_rng_state(state)
    features(0)
    assert torch.equal(torch.get_rng_state(), before)
