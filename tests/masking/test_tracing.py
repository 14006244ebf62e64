"""Channels are found in any network, and attenuating them does exactly what it says."""

import pytest
import torch
import torchvision
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.masking.attenuation import Attenuation
from orthounlearn.masking.tracing import Site, select_sites, trace_sites
from orthounlearn.models import resnet, vgg


class Branches(nn.Module):
    """Skips written by hand, functional ReLU and pooling, a layer that runs twice, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.left = nn.Conv2d(6, 6, 1)
        self.left_norm = nn.BatchNorm2d(6)
        self.gate = nn.Conv2d(6, 6, 1)
        self.gated = nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = self.twice(torch.relu(self.twice(x)))
        x = torch.relu(x + self.left_norm(self.left(x)))
        x = torch.sigmoid(self.gate(x)) * self.gated(x)
        x = torch.relu(self.last(x))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


NETS = {
    "resnet18": lambda: resnet(depth=18, num_classes=4, width=4),
    "resnet20": lambda: resnet(depth=20, num_classes=4, width=4),
    "resnet50": lambda: resnet(depth=50, num_classes=4, width=4),
    "vgg16": lambda: vgg(depth=16, num_classes=4, width=8),
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=4),
    "torchvision vgg11": lambda: torchvision.models.vgg11(num_classes=4),
    "torchvision mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=4),
    "torchvision densenet": lambda: torchvision.models.densenet121(num_classes=4),
    "by hand": Branches,
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> nn.Module:
    built = NETS[request.param]().eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):  # untrained ones are the identity, a lucky case
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return built


def images(net: nn.Module) -> Tensor:
    size = 64 if type(net).__module__.startswith("torchvision") else 32
    return torch.randn(2, 3, size, size)


def activations(net: nn.Module, module: str, batch: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = net.get_submodule(module).register_forward_hook(lambda *a: seen.append(a[2].clone()))
    with torch.inference_mode():
        net(batch)
    handle.remove()
    return seen[-1]


def test_clean_attenuation_scales_the_activation_of_a_layer_exactly(net: nn.Module):
    """The definition of soft pruning: after the edit, channel j of a layer is f_j times it."""
    batch = images(net)
    sites = [s for s in trace_sites(net, batch) if s.kind == "conv"]
    assert sites
    for site in sites[:: max(1, len(sites) // 6)]:
        before = activations(net, site.probe, batch)
        factors = torch.rand(site.num_channels)
        edit = Attenuation(net, [site])
        edit.apply(edit.shape([factors]))
        after = activations(net, site.probe, batch)
        torch.testing.assert_close(after, before * factors.view(1, -1, 1, 1), atol=2e-4, rtol=2e-4)


def test_a_zeroed_channel_of_a_stream_is_zero_in_the_sum(net: nn.Module):
    """Every term of the sum must be attenuated; else the skip path carries the channel on."""
    batch = images(net)
    for site in [s for s in trace_sites(net, batch) if s.kind == "stream"]:
        factors = torch.ones(site.num_channels)
        factors[::2] = 0
        edit = Attenuation(net, [site])
        edit.apply(edit.shape([factors]))
        after = activations(net, site.probe, batch)
        assert (after[:, ::2] == 0).all()
        assert (after[:, 1::2] != 0).any()


def test_zeroed_last_channels_leave_only_the_bias_of_the_classifier(net: nn.Module):
    batch = images(net)
    try:
        chosen = select_sites(trace_sites(net, batch), "last")
    except UsageError:
        pytest.skip("the classifier reads no single set of channels")
    edit = Attenuation(net, chosen)
    edit.apply(edit.shape([torch.zeros(site.num_channels) for site in chosen]))
    with torch.inference_mode():
        logits = net(batch)
    torch.testing.assert_close(logits[0], logits[1])  # nothing of the image is left


def test_tracing_leaves_the_network_as_it_was(net: nn.Module):
    net.train()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flags = [p.requires_grad for p in net.parameters()]
    trace_sites(net, images(net))
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(p.grad is None for p in net.parameters())


def sites_of(name: str) -> dict[str, Site]:
    net = NETS[name]()
    return {site.name: site for site in trace_sites(net, images(net))}


def test_resnet_streams_are_its_stages():
    streams = [s for s in sites_of("resnet18").values() if s.kind == "stream"]
    assert [s.num_channels for s in streams] == [4, 8, 16, 32]
    assert [len(s.producers) for s in streams] == [3, 3, 3, 3]  # stem or shortcut, and two blocks
    assert [s.feeds_classifier for s in streams] == [False, False, False, True]


def test_vgg_has_a_site_for_every_convolution():
    sites = list(sites_of("vgg16").values())
    assert len(sites) == 13
    assert [s.feeds_classifier for s in sites] == [False] * 12 + [True]


def test_layers_that_cannot_be_attenuated_exactly_are_left_out():
    names = {p.conv for site in sites_of("by hand").values() for p in site.producers}
    assert "last" in names
    assert "twice" not in names  # runs twice: its second input changes too


def test_sites_by_kind_and_by_name():
    sites = tuple(sites_of("resnet18").values())
    assert all(not s.in_stream for s in select_sites(sites, "inner"))
    assert len(select_sites(sites, "inner")) == 8
    assert len(select_sites(sites, "convs")) == 20
    name = sites[3].name
    assert [s.name for s in select_sites(sites, [name])] == [name]
    with pytest.raises(UsageError, match="Names: "):
        select_sites(sites, "no-such-site")


def test_network_without_convolutions_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(UsageError, match="convolutions"):
        trace_sites(net, torch.randn(2, 3, 2, 2))
