"""Finding the classifier of any network: the linear layer whose output is the logits."""

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError


def find_classifier(net: nn.Module, example: Tensor) -> nn.Linear:
    """Return the linear layer that computes the logits (`logits_layer`).

    Args:
        net: Any classifier.
        example: Images (B, C, H, W) that it accepts.

    Raises:
        UsageError: The logits do not come straight out of one linear layer.
    """
    classifier = logits_layer(net, example)
    if classifier is None:
        raise UsageError(
            "Expected a network whose logits come straight out of an nn.Linear, but found none in "
            f"{type(net).__name__}. Methods that edit the classifier need one; others do not."
        )
    return classifier


def logits_layer(net: nn.Module, example: Tensor) -> nn.Linear | None:
    """Return the linear layer that computes the logits, where there is one.

    Found by running the network: it is the `nn.Linear` whose output tensor is what the network
    returns, so that auxiliary heads and names do not matter.

    Args:
        net: Any classifier.
        example: Images (B, C, H, W) that it accepts.
    """
    outputs: dict[int, nn.Linear] = {}
    handles = [
        module.register_forward_hook(
            lambda module, _, output: outputs.__setitem__(output.data_ptr(), module)
        )
        for module in net.modules()
        if isinstance(module, nn.Linear)
    ]
    modes = {module: module.training for module in net.modules()}
    try:
        with torch.inference_mode():
            logits = net.eval()(example)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for handle in handles:
            handle.remove()
    return outputs.get(logits.data_ptr())
