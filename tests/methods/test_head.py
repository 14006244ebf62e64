"""Finding the classifier, and what all methods have in common that edit it alone."""

import pytest
import torch
from torch import nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.bias_shift import BiasShift
from orthounlearn.methods.drop_unit import DropUnit
from orthounlearn.methods.head import find_classifier
from orthounlearn.methods.mask_logit import MaskLogit
from orthounlearn.methods.refit_head import RefitHead
from orthounlearn.methods.reinit_row import ReinitRow
from orthounlearn.methods.zero_row import ZeroRow
from tests.methods.toy import CLASSES, IMAGES, Toy, kept, run, without_bias


def test_classifier_is_the_layer_that_makes_the_logits(net: nn.Module):
    assert find_classifier(net, IMAGES[:2]) is net.classifier
    with pytest.raises(UsageError, match=r"nn\.Linear"):
        find_classifier(nn.Conv2d(3, 4, 8), IMAGES[:2])


HEADS = {
    "mask_logit": MaskLogit,
    "zero_row": ZeroRow,
    "drop_unit": DropUnit,
    "reinit_row": ReinitRow,
    "bias_shift": lambda: BiasShift(target=0.0, batch_size=7),
    "refit_head": lambda: RefitHead(weight_decay=0.1, batch_size=7),
}


@pytest.mark.parametrize("name", HEADS)
def test_features_stay_bit_by_bit_and_modes_as_found(name: str, net: nn.Module):
    before = {n: t.clone() for n, t in net.state_dict().items()}
    classes = list(range(CLASSES))
    after = run(HEADS[name](), net, Toy(2)).state_dict()
    assert after.keys() == before.keys()
    for tensor in before.keys() - {"classifier.weight", "classifier.bias"}:
        assert torch.equal(after[tensor], before[tensor]), tensor
    if name != "refit_head":
        classes.remove(2)
        for tensor in ("classifier.weight", "classifier.bias"):
            assert torch.equal(after[tensor][classes], before[tensor][classes])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m.training for m in net.modules())


@pytest.mark.parametrize("name", HEADS)
def test_classifier_without_a_bias_is_no_obstacle(name: str):
    net = without_bias()
    before = net(IMAGES)
    after = run(HEADS[name](), net, Toy(2))(IMAGES)
    if name != "refit_head":
        assert torch.equal(after[:, kept((2,))], before[:, kept((2,))])
    assert not torch.equal(after[:, 2], before[:, 2])
    assert (net[3].bias is None) == (name in ("zero_row", "reinit_row", "refit_head"))
