"""What a network's blocks and its classifier read, caught while it runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.head import find_classifier
from orthounlearn.metrics.suite import CLASSIFIER
from orthounlearn.models.blocks import block_outputs, pooled

Read = Callable[[], dict[str, NDArray[np.float16]]]
"""Returns layer -> (B, C) of the last forward pass."""


class FeatureReader:
    """Reads the pooled output of every block, and what the classifier reads.

    Args:
        net: Any network; unchanged. One whose logits do not come straight out of a linear layer
            has no features of its classifier, one without convolutions none of its blocks.
        example: Images that it accepts.
    """

    def __init__(self, net: nn.Module, example: Tensor) -> None:
        self._net = net
        self._blocks = block_outputs(net, example)
        try:
            self._classifier: nn.Linear | None = find_classifier(net, example)
        except UsageError:  # a network of another shape: audited without that probe
            self._classifier = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers: the blocks by number from 1, then the classifier."""
        blocks = tuple(str(number) for number in range(1, len(self._blocks) + 1))
        return blocks if self._classifier is None else (*blocks, CLASSIFIER)

    @contextmanager
    def reading(self, layers: Sequence[str]) -> Iterator[Read]:
        """Yield a function that returns the features of the last forward pass.

        Meanwhile the classifier computes in float32, whatever precision surrounds it.

        Args:
            layers: Names of `self.layers`; others are passed over.
        """
        found: dict[str, NDArray[np.float16]] = {}

        def keep(layer: str, features: Tensor) -> None:
            found[layer] = pooled(features).cpu().numpy()

        def after(_: nn.Module, __: object, output: Tensor, *, layer: str) -> None:
            keep(layer, output)

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            keep(CLASSIFIER, inputs[0])

        with ExitStack() as hooks:
            if self._classifier is not None:
                hooks.callback(self._classifier.register_forward_hook(_in_float32).remove)
            for number, name in enumerate(self._blocks, start=1):
                if str(number) in layers:
                    module = self._net.get_submodule(name)
                    hook = partial(after, layer=str(number))
                    hooks.callback(module.register_forward_hook(hook).remove)
            if self._classifier is not None and CLASSIFIER in layers:
                hooks.callback(self._classifier.register_forward_pre_hook(before).remove)
            yield lambda: dict(found)


def _in_float32(classifier: nn.Linear, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
    """Compute the logits again without autocast.

    bfloat16 has 8 bits: it would round margins, and a masked logit of −10⁴ to steps of 64, which
    looks like forgetting although the weights have kept everything.
    """
    with torch.autocast(inputs[0].device.type, enabled=False):
        return F.linear(inputs[0].float(), classifier.weight.float(), _float(classifier.bias))


def _float(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()


def concatenate(parts: Sequence[dict[str, NDArray[np.float16]]]) -> dict[str, NDArray[np.float16]]:
    """Join the features of several batches, layer by layer."""
    return {layer: np.concatenate([part[layer] for part in parts]) for layer in parts[0]}
