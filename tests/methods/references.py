"""What methods are compared with: gradients and divergences by other means, states of networks."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor, nn


def values(net: nn.Module) -> dict[str, Tensor]:
    """Return copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


def assert_same(one: nn.Module, other: nn.Module) -> None:
    """Refuse two networks that differ in any bit of their state."""
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def gradient(loss: Tensor, net: nn.Module) -> Tensor:
    """Return the gradient of all parameters as one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def one_by_one(
    net: nn.Module, images: Tensor, labels: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the gradient of each image (N, …), by one backward pass each."""
    names, parameters = zip(*net.named_parameters(), strict=True)
    rows = [
        torch.autograd.grad(loss(net(image[None]), label[None]), parameters)
        for image, label in zip(images, labels, strict=True)
    ]
    columns = map(torch.stack, zip(*rows, strict=True))
    return dict(zip(names, columns, strict=True))


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> np.ndarray:
    """Return KL(teacher ‖ student) of each image, from scipy."""
    p, q = (softmax(np.asarray(t.detach()) / temperature, axis=1) for t in (teacher, student))
    return rel_entr(p, q).sum(1)
