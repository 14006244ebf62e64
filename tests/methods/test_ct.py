"""CT: transposed kernels."""

import torch
from torch import nn

from orthounlearn.methods.ct import ConvolutionTranspose
from tests.methods.toy import IMAGES, OPTIONS, Toy


def test_transposed_kernels_see_transposed_images():
    conv = nn.Conv2d(3, 5, 3, padding=1)
    expected = conv(IMAGES)
    ConvolutionTranspose(**OPTIONS).start(conv, Toy(1))
    torch.testing.assert_close(conv(IMAGES.mT).mT, expected)
    assert not torch.allclose(conv(IMAGES), expected)


def test_transposing_twice_changes_nothing(net: nn.Module):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    method = ConvolutionTranspose(**OPTIONS)
    method.start(net, Toy(1))
    turned = {n for n, t in net.state_dict().items() if not torch.equal(t, before[n])}
    convolutions = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d)]
    assert turned == {f"{n}.weight" for n, m in convolutions if m.weight.shape[-1] > 1}
    method.start(net, Toy(1))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_oblong_kernels_keep_their_shape_and_values():
    net = nn.Sequential(nn.Conv2d(3, 4, (1, 3)), nn.Conv2d(4, 4, 3))
    oblong, square = net[0].weight.detach().clone(), net[1].weight.detach().clone()
    ConvolutionTranspose(**OPTIONS).start(net, Toy(1))
    assert torch.equal(net[0].weight, oblong)
    assert torch.equal(net[1].weight, square.mT)
