"""The reinitialised row; what it shares with the other heads is tested in test_head.py."""

import copy

import pytest
import torch
from torch import nn

from orthounlearn.methods.reinit_row import ReinitRow
from tests.methods.toy import Toy, run


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_reinitialised_rows_are_those_of_a_fresh_linear_layer(net: nn.Module, forget):
    torch.manual_seed(5)
    fresh = nn.Linear(net.classifier.in_features, len(forget))
    state = torch.get_rng_state()
    run(ReinitRow(), net, Toy(*forget, seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(net.classifier.weight[list(forget)], fresh.weight, rtol=0, atol=1e-7)
    torch.testing.assert_close(net.classifier.bias[list(forget)], fresh.bias, rtol=0, atol=1e-7)


def test_reinitialised_rows_depend_on_the_seed(net: nn.Module):
    other = copy.deepcopy(net)
    run(ReinitRow(), net, Toy(1, seed=5))
    run(ReinitRow(), other, Toy(1, seed=6))
    assert not torch.equal(net.classifier.weight[1], other.classifier.weight[1])
