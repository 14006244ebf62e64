"""The masked logit: the class never wins, and no other logit changes."""

import pytest
import torch
from torch import nn

from orthounlearn.methods.mask_logit import MaskLogit
from tests.methods.toy import IMAGES, Toy, kept, run, without_bias


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_masked_logit_never_wins_and_the_others_keep_every_bit(net: nn.Module, forget):
    before = net(IMAGES)
    after = run(MaskLogit(), net, Toy(*forget))(IMAGES)
    assert torch.equal(before[:, kept(forget)], after[:, kept(forget)])
    assert (after.softmax(1)[:, list(forget)] == 0).all()


def test_masked_logit_gives_a_classifier_its_missing_bias():
    net = run(MaskLogit(), without_bias(), Toy(2))
    assert (net(IMAGES).argmax(1) != 2).all()
