"""EU-k: the last layers start anew. What it shares with CF-k is tested in test_cf_k.py."""

import copy

import pytest
import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.eu_k import ExactUnlearningK
from orthounlearn.methods.layers import weighted_layers
from tests.methods.toy import FROZEN, IMAGES, OPTIONS, Toy


def test_last_layers_of_eu_k_are_all_fresh(net: nn.Module):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    last = [m for layer in weighted_layers(net, IMAGES[:2])[-2:] for m in layer]
    names = [n for m in last for n, each in net.named_modules() if each is m]
    torch.manual_seed(7)
    conv, norm, head = (copy.deepcopy(module) for module in last)
    for module in (conv, norm, head):
        module.reset_parameters()
    torch.manual_seed(7)
    after = ExactUnlearningK(k=2, **OPTIONS).start(net, Toy(1)).state_dict()
    fresh = {
        f"{name}.{key}": tensor
        for name, module in zip(names, (conv, norm, head), strict=True)
        for key, tensor in module.state_dict().items()
    }
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert torch.equal(tensor, fresh.get(name, before[name])), name
        if name in fresh and tensor.is_floating_point():
            assert not (tensor == before[name]).any(), name


def test_eu_k_refuses_what_it_cannot_make_anew(net: nn.Module):
    with pytest.raises(UsageError, match=r"method\.batch_norm"):
        ExactUnlearningK(k=1, **FROZEN).start(net, Toy(1))

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, images: Tensor) -> Tensor:
            return self.factor * images

    scaled = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), Scale())
    with pytest.raises(UsageError, match="Scale"):
        ExactUnlearningK(k=1, **OPTIONS).start(scaled, Toy(1))
