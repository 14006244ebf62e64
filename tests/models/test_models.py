"""Backbones: every depth at every image size, and the published parameter counts."""

import pytest
import torch
import torchvision
from torch import nn

from orthounlearn.errors import UsageError
from orthounlearn.models import resnet, vgg


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("size", [8, 28, 32, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("build", "depth"), [(resnet, 20), (resnet, 18), (resnet, 50), (vgg, 11), (vgg, 19)]
)
def test_every_stem_runs_and_learns(build, depth: int, channels: int, size: int):
    net = build(depth=depth, num_classes=7, in_channels=channels, image_size=size, width=4)
    logits = net(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


# He et al. (arXiv 1512.03385), table 6, rounds to 0.27M, 0.46M and 0.85M with shortcuts without
# parameters; ours are 1×1 convolutions (option B), which adds 0.2 to 0.5 %.
@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (56, 0.85)])
def test_small_resnets_have_the_published_size(depth: int, millions: float):
    net = resnet(depth=depth, num_classes=10, width=16)
    assert parameters(net) / 1e6 == pytest.approx(millions, abs=0.015)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_imagenet_resnets_have_torchvisions_size(depth: int):
    net = resnet(depth=depth, num_classes=1000, image_size=224)
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    assert parameters(net) == parameters(theirs)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_vgg_features_have_torchvisions_size(depth: int):
    theirs = getattr(torchvision.models, f"vgg{depth}_bn")().features
    ours = vgg(depth=depth, num_classes=10, image_size=32).features
    assert sum(isinstance(m, nn.Conv2d) for m in ours) == sum(
        isinstance(m, nn.Conv2d) for m in theirs
    )
    weights = [m.weight.shape for m in ours if isinstance(m, nn.Conv2d)]
    assert weights == [m.weight.shape for m in theirs if isinstance(m, nn.Conv2d)]


def test_depth_is_the_number_of_weighted_layers():
    for depth in (20, 32, 56, 18, 34, 50):
        net = resnet(depth=depth, num_classes=10, width=4)
        shortcuts = {m for n, m in net.named_modules() if "downsample" in n}
        layers = [
            m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m not in shortcuts
        ]
        assert len(layers) == depth


@pytest.mark.parametrize("build", [resnet, vgg])
@pytest.mark.parametrize("bad", [{"depth": 21}, {"width": 0}])
def test_impossible_networks_are_refused(build, bad: dict[str, int]):
    good = {"depth": 20 if build is resnet else 11, "width": 4}
    with pytest.raises(UsageError, match="Expected a"):
        build(num_classes=10, **{**good, **bad})
