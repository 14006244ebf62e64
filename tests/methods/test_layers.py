"""The layers of a network in their order, and the modes of its modules."""

import pytest
from torch import Tensor, nn

from orthounlearn.methods.layers import evaluating, weighted_layers
from orthounlearn.models import resnet
from tests.methods.toy import IMAGES


def named(net: nn.Module, layers: list[list[nn.Module]]) -> list[list[str]]:
    names = {module: name for name, module in net.named_modules()}
    return [[names[module] for module in layer] for layer in layers]


def test_layers_come_in_the_order_of_the_forward_pass_with_their_norms():
    net = resnet(depth=20, num_classes=4, image_size=8, width=8)
    expected = [["stem.0", "stem.1"]]
    for block in range(9):
        expected += [[f"blocks.{block}.conv{i}", f"blocks.{block}.bn{i}"] for i in (1, 2)]
        if block in (3, 6):
            expected += [[f"blocks.{block}.downsample.0", f"blocks.{block}.downsample.1"]]
    assert named(net, weighted_layers(net, IMAGES[:2])) == [*expected, ["classifier"]]


class Tangled(nn.Module):
    """Defined in another order than it runs, with a norm in front and a head that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 4)
        self.unused = nn.Linear(5, 9)
        self.second = nn.Conv2d(6, 5, 1)
        self.slope = nn.PReLU()
        self.first = nn.Conv2d(3, 6, 3)
        self.whiten = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.slope(self.first(self.whiten(images)))
        return self.last(self.second(hidden).mean((2, 3)))


def test_layers_do_not_depend_on_the_order_of_definition():
    net = Tangled().train()
    net.whiten.eval()
    found = named(net, weighted_layers(net, IMAGES[:2]))
    assert found == [["whiten", "first", "slope"], ["second"], ["last"]]
    assert net.training
    assert not net.whiten.training
    assert not any(module._forward_hooks for module in net.modules())


def test_evaluating_gives_each_module_its_own_mode_back():
    net = Tangled().train()
    net.whiten.eval()

    def fail() -> None:
        with evaluating(net):
            assert not any(module.training for module in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert [n for n, m in net.named_modules() if not m.training] == ["whiten"]
