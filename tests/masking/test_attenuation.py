"""The edit of the weights and what takes it back."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.masking.attenuation import Attenuation, Inverse
from orthounlearn.masking.tracing import Site, select_sites, trace_sites
from orthounlearn.models import resnet, vgg

EXAMPLE = torch.zeros(2, 3, 8, 8)


def trained_looking(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return net.eval()


@pytest.fixture
def net() -> nn.Module:
    return trained_looking(resnet(depth=20, num_classes=4, image_size=8, width=4))


def sites_of(net: nn.Module, which: str = "last") -> tuple[Site, ...]:
    return select_sites(trace_sites(net, EXAMPLE), which)


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_factor_one_changes_no_bit(net: nn.Module):
    before = state(net)
    edit = Attenuation(net, sites_of(net, "convs"))
    edit.apply(edit.shape([torch.ones(s.num_channels) for s in sites_of(net, "convs")]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_only_the_named_weights_change(net: nn.Module):
    before = state(net)
    sites = sites_of(net)
    edit = Attenuation(net, sites)
    edit.apply(edit.shape([torch.zeros(s.num_channels) for s in sites]))
    changed = {n for n, tensor in net.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed == set(edit.names)


def test_literal_handling_leaks_what_the_formula_says():
    """y = γ(x − μ)/σ + β turns into f·y + (1 − f)(β − γμ/σ) when only the kernel is scaled."""
    net = trained_looking(vgg(depth=11, num_classes=4, image_size=8, width=8)).double()
    site = sites_of(net.float())[0]
    net.double()
    norm = net.get_submodule(site.probe)
    batch = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    seen: list[Tensor] = []
    norm.register_forward_hook(lambda *arguments: seen.append(arguments[2].clone()))
    factors = torch.rand(site.num_channels, dtype=torch.float64)
    edit = Attenuation(net, [site], norm_handling="literal")
    with torch.no_grad():
        net(batch)
        edit.apply(edit.shape([factors]))
        net(batch)
        sigma = (norm.running_var + norm.eps).sqrt()
        leak = (1 - factors) * (norm.bias - norm.weight * norm.running_mean / sigma)
        expected = factors.view(1, -1, 1, 1) * seen[0] + leak.view(1, -1, 1, 1)
    torch.testing.assert_close(seen[1], expected)
    assert leak.abs().max() > 0.1


@given(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=16, max_size=16))
@settings(max_examples=20)
def test_inverse_restores_every_bit(values: list[float]):
    torch.manual_seed(0)
    net = trained_looking(resnet(depth=20, num_classes=4, image_size=8, width=4))
    before = state(net)
    sites = sites_of(net)
    edit = Attenuation(net, sites)
    inverse = edit.inverse(edit.shape([torch.tensor(values)]))
    inverse.restore(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_inverse_survives_the_disk_and_knows_its_network(net: nn.Module, tmp_path: Path):
    before, other = state(net), copy.deepcopy(net)
    sites = sites_of(net)
    edit = Attenuation(net, sites)
    factors = [torch.linspace(0, 1, s.num_channels) for s in sites]
    edit.inverse(edit.shape(factors)).save(tmp_path / "inverse.safetensors")
    inverse = Inverse.load(tmp_path / "inverse.safetensors")
    with pytest.raises(UsageError, match="Nothing was changed"):
        inverse.restore(other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    inverse.restore(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_damaged_inverse_is_refused(tmp_path: Path):
    (tmp_path / "inverse.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="inverse"):
        Inverse.load(tmp_path / "inverse.safetensors")


def test_norm_without_weights_needs_the_literal_handling():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    sites = sites_of(net)
    with pytest.raises(UsageError, match="literal"):
        Attenuation(net, sites)
    Attenuation(net, sites, norm_handling="literal")


def test_unknown_handling_is_refused(net: nn.Module):
    with pytest.raises(UsageError, match="clean or literal"):
        Attenuation(net, sites_of(net), norm_handling="other")
