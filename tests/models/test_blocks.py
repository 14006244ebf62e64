"""Blocks are found by the data flow, in networks of any make."""

import torch
import torchvision
from torch import Tensor, nn

from orthounlearn.models.blocks import block_outputs
from orthounlearn.models.resnet import resnet
from orthounlearn.models.vgg import vgg

IMAGES = torch.zeros(2, 3, 32, 32)


def test_residual_network_has_a_stem_and_its_blocks():
    net = torchvision.models.resnet18(num_classes=4)
    layers = [f"layer{stage}.{number}" for stage in range(1, 5) for number in (0, 1)]
    # The last block is read through the pooling that follows.
    assert block_outputs(net, IMAGES) == ("maxpool", *layers[:-1], "avgpool")


def test_ours_have_as_many_blocks_as_they_say():
    assert len(block_outputs(resnet(depth=18, num_classes=4, width=4, image_size=32), IMAGES)) == 9
    assert len(block_outputs(vgg(depth=13, num_classes=4, width=4, image_size=32), IMAGES)) == 10


class Branches(nn.Module):
    """Two branches that meet: only where they have met is a block over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(i, 4, 3) for i in (3, 4, 4))
        self.join = nn.Identity()
        self.head = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images).relu()
        both = self.join(torch.cat([self.left(stem), self.right(stem)], 1).relu())
        return self.head(both.mean((2, 3)))


def test_a_branch_is_no_block():
    assert block_outputs(Branches(), IMAGES) == ("stem", "join")


class Bypassed(Branches):
    """The stem goes round everything to the classifier, so nothing after it is a bottleneck."""

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images).relu()
        left = self.join(self.left(stem))
        return self.head(torch.cat([left.mean((2, 3)), stem.mean((2, 3))], 1))


def test_what_is_gone_round_is_no_block():
    assert block_outputs(Bypassed(), IMAGES) == ("stem",)


def test_network_without_convolutions_has_none():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8), nn.ReLU(), nn.Linear(8, 2))
    assert block_outputs(net, IMAGES) == ()


def test_nothing_is_left_behind():
    net = torchvision.models.resnet18(num_classes=4).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    block_outputs(net, IMAGES)
    assert net.training
    assert all(not module._forward_hooks for module in net.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
