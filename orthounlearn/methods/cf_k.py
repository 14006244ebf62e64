"""CF-k: fine-tuning of the last k layers on the retain set."""

from collections.abc import Mapping
from typing import Unpack

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, Training
from orthounlearn.methods.fine_tune import FineTune
from orthounlearn.methods.layers import weighted_layers


class CatastrophicForgettingK(FineTune):
    """Minimise CE(D_r) over the last k layers, from the original weights; the others are fixed.

    Layers are the convolutions and linear layers in the order of the forward pass, each with the
    BatchNorm that follows it. Earlier tensors stay bit by bit, and earlier BatchNorms normalise
    with the statistics that they have.

    Source: Goel et al., "Towards Adversarial Evaluations for Inexact Machine Unlearning", arXiv
    2201.06640; shash42@e315401 (10 to 50 of 110 layers, 30 epochs, learning rate cycled between
    0.1 and 5e-3, batch 64). Defaults here: the last stage of a ResNet-18 and its classifier,
    k = 6, for 10 epochs of SGD 0.01, momentum 0.9, batch 256, as in xcadet/deepunlearn@6830ff6.

    Deviations: the learning rate is constant, and weight decay is the usual 5e-4 (there 5e-5, and
    0.1 towards the original weights). The statistics of fixed layers are frozen; in the authors'
    code they go on adapting, so that "fixed" layers change.

    Args:
        k: Layers to train, counted from the end.
        batch_norm: Of the trained layers; the others are always frozen.
    """

    def __init__(
        self,
        *,
        k: int,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if k < 1:
            raise UsageError(f"Expected method.k of at least 1 layer, but got {k}.")
        self.k = k

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Find the last layers and fix the others."""
        layers = weighted_layers(net, context.example)
        if self.k > len(layers):
            raise UsageError(
                f"Expected method.k of at most the {len(layers)} layers of this "
                f"{type(net).__name__}, but got {self.k}."
            )
        self.trained = [module for layer in layers[-self.k :] for module in layer]
        trainable = {p for module in self.trained for p in module.parameters()}
        # Without a gradient the backward pass ends where the trained layers begin.
        self._fixed = [p for p in net.parameters() if p.requires_grad and p not in trainable]
        for parameter in self._fixed:
            parameter.requires_grad_(False)
        self._fixed_norms = [
            module
            for module in net.modules()
            if isinstance(module, _BatchNorm) and module not in self.trained
        ]
        return net

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy of the retained images, earlier statistics frozen."""
        for norm in self._fixed_norms:  # here, since each epoch starts with all in train mode
            norm.eval()
        return super().loss(net, batch)

    def finish(self, net: nn.Module) -> nn.Module:
        """Release the fixed layers."""
        for parameter in self._fixed:
            parameter.requires_grad_(True)
        for norm in self._fixed_norms:
            norm.train(net.training)
        return net
