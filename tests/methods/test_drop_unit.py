"""The dropped unit; what it shares with the other heads is tested in test_head.py."""

import copy

import pytest
import torch
from torch import nn

from orthounlearn.methods.drop_unit import DropUnit
from tests.methods.toy import IMAGES, Toy, kept, run


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_dropped_unit_equals_a_classifier_without_the_row(net: nn.Module, forget):
    smaller = copy.deepcopy(net)
    smaller.classifier.weight = nn.Parameter(net.classifier.weight[kept(forget)].detach())
    smaller.classifier.bias = nn.Parameter(net.classifier.bias[kept(forget)].detach())
    after = run(DropUnit(), net, Toy(*forget))(IMAGES).softmax(1)
    torch.testing.assert_close(after[:, kept(forget)], smaller(IMAGES).softmax(1))
    assert (after[:, list(forget)] == 0).all()


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_dropped_unit_is_gone_from_a_state_that_the_architecture_loads(net: nn.Module, forget):
    fresh = copy.deepcopy(net)
    for parameter in fresh.parameters():
        parameter.data.fill_(float("nan"))
    state = run(DropUnit(), net, Toy(*forget)).state_dict()
    fresh.load_state_dict(state)
    assert torch.equal(fresh(IMAGES), net(IMAGES))
    assert (state["classifier.weight"][list(forget)] == 0).all()
    logits = fresh(IMAGES)[:, list(forget)]
    assert (logits == -1e4).all()
    assert torch.equal(logits.half().float(), logits)
