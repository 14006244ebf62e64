"""What methods ask of a network's modules: their order, their modes, a classifier with a bias."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from orthounlearn.methods.head import find_classifier


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network into eval mode; give every module its own mode back afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def weighted_layers(net: nn.Module, example: Tensor) -> list[list[nn.Module]]:
    """Return the layers in the order of the forward pass, each with what belongs to it.

    A layer is a convolution or a linear layer that runs. Smaller modules with weights or buffers
    of their own (BatchNorm, PReLU) belong to the layer that ran before them, those at the very
    start to the first layer. A module that runs more than once counts where it runs first.

    Args:
        net: Any network. Its modes and hooks are left as they were.
        example: Images (B, C, H, W) that it accepts; their content plays no part.
    """
    ran: dict[nn.Module, None] = {}
    handles = [
        module.register_forward_hook(lambda module, *_: ran.setdefault(module))
        for module in net.modules()
        if _is_layer(module) or _is_small(module)
    ]
    try:
        with evaluating(net), torch.no_grad():
            net(example)
    finally:
        for handle in handles:
            handle.remove()
    layers: list[list[nn.Module]] = [[]]
    for module in ran:
        if _is_layer(module) and any(_is_layer(member) for member in layers[-1]):
            layers.append([])
        layers[-1].append(module)
    return layers


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, (_ConvNd, nn.Linear))


def _is_small(module: nn.Module) -> bool:
    has_state = any(True for _ in module.parameters()) or any(True for _ in module.buffers())
    return has_state and not any(True for _ in module.children())


def classifier_with_bias(net: nn.Module, example: Tensor) -> nn.Linear:
    """Return the layer that computes the logits; it gets a bias of zeros when it has none."""
    classifier = find_classifier(net, example)
    if classifier.bias is None:
        classifier.bias = nn.Parameter(classifier.weight.new_zeros(classifier.out_features))
    return classifier
