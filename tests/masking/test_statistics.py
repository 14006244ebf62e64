"""Class statistics against the slow way, one image at a time."""

import pytest
import torch
from torch import Tensor, nn

from orthounlearn.masking.statistics import ClassStatistics, class_statistics
from orthounlearn.masking.tracing import trace_sites
from orthounlearn.models import resnet

IMAGES = torch.randn(20, 3, 8, 8)
LABELS = torch.arange(20) % 4


@pytest.fixture
def net() -> nn.Module:
    return resnet(depth=20, num_classes=4, image_size=8, width=4)


def measure(net: nn.Module, pooling: str, batch: int = 6) -> ClassStatistics:
    batches = list(zip(IMAGES.split(batch), LABELS.split(batch), strict=True))
    sites = trace_sites(net, IMAGES[:2])
    return class_statistics(net, batches, sites=sites, num_classes=4, pooling=pooling)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_statistics_match_one_image_at_a_time(net: nn.Module, pooling: str):
    found = measure(net, pooling)
    net.eval()
    for site in trace_sites(net, IMAGES[:2])[-3:]:
        expected = torch.zeros(4, site.num_channels, dtype=torch.float64)
        for image, label in zip(IMAGES, LABELS, strict=True):
            seen: list[Tensor] = []
            probe = net.get_submodule(site.probe)
            handle = probe.register_forward_hook(lambda *a, seen=seen: seen.append(a[2].clone()))
            with torch.no_grad():
                net(image[None])
            handle.remove()
            activation = torch.relu(seen[-1][0].double()).flatten(1)
            pooled = activation.amax(1) if pooling == "max" else activation.mean(1)
            expected[label] += pooled
        torch.testing.assert_close(found.sums[site.name], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.means(site.name), expected / 5, atol=1e-4, rtol=1e-4)
    assert found.counts_K.tolist() == [5, 5, 5, 5]


def test_batches_do_not_matter(net: nn.Module):
    one, other = measure(net, "max", 20), measure(net, "max", 3)
    for name, sums in one.sums.items():
        torch.testing.assert_close(sums, other.sums[name], atol=1e-4, rtol=1e-4)


def test_the_network_is_left_as_it_was(net: nn.Module):
    net.train()
    net.blocks[0].eval()
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    measure(net, "max")
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
