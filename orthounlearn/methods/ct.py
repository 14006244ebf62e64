"""Convolution Transpose: every kernel is mirrored at its diagonal, then the network is tuned."""

import torch
from torch import nn

from orthounlearn.methods.base import Context
from orthounlearn.methods.fine_tune import FineTune


class ConvolutionTranspose(FineTune):
    """W[o, i, a, b] := W[o, i, b, a] in every convolution, then minimise CE(D_r).

    Source: Cadet et al., "Deep Unlearn: Benchmarking Machine Unlearning for Image
    Classification", arXiv 2410.01276 (a method of a Kaggle competition);
    xcadet/deepunlearn@6830ff6 (SGD 1e-3, momentum 0.9, weight decay 5e-4, 3 epochs, batch 64).

    Deviations: the learning rate is constant (there a cosine). Kernels that are not square keep
    their values, since their transposed shape does not fit the layer.
    """

    def start(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - a hook
        """Swap the spatial axes of the kernels."""
        with torch.no_grad():
            for module in net.modules():
                if isinstance(module, nn.Conv2d) and len(set(module.kernel_size)) == 1:
                    module.weight.copy_(module.weight.transpose(2, 3).clone())
        return net
