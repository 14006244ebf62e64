"""The zeroed row; what it shares with the other heads is tested in test_head.py."""

import pytest
import torch
from torch import nn

from orthounlearn.methods.zero_row import ZeroRow
from tests.methods.toy import IMAGES, Toy, kept, run


@pytest.mark.parametrize("forget", [(1,), (0, 3)])
def test_zeroed_rows_give_a_logit_of_zero_not_of_minus_infinity(net: nn.Module, forget):
    before = net(IMAGES)
    after = run(ZeroRow(), net, Toy(*forget))(IMAGES)
    assert (after[:, list(forget)] == 0).all()
    assert torch.equal(after[:, kept(forget)], before[:, kept(forget)])
    with torch.no_grad():  # all other logits below 0: the zero wins
        net.classifier.bias[kept(forget)] = -1e3
    assert torch.isin(net(IMAGES).argmax(1), torch.tensor(forget)).all()
