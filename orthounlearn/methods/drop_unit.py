"""The output of the class taken out of the classifier: a rival that forgets nothing inside."""

import torch
from torch import nn

from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.layers import classifier_with_bias

_NO_OUTPUT = -1e4
"""The logit of a class without an output: finite, since −∞ makes margins undefined. Its
probability e^−10000 is 0 in any float format, and it fits into float16."""


class DropUnit(UnlearningMethod):
    """Remove the output units of the forgotten classes; p(c | x) = softmax over c ∉ F.

    What is left is a classifier of K − |F| outputs. It is stored as one of K outputs, so that it
    loads into the original architecture and its audit reads K logits: the rows of the forgotten
    classes are gone (w_f := 0) and their logit is the constant b_f := −10⁴, whatever the image
    shows. Unlike `mask_logit`, no weight of theirs is left to be unmasked.

    Source: the last step of Boundary Expanding (Chen et al., "Boundary Unlearning", CVPR 2023,
    arXiv 2303.11570) without the training before it; here as a control. No hyper-parameters.

    Deviations: the output is stored as a constant rather than removed, for the reason above.
    """

    training_free = True

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Find the classifier; give it a bias when it has none."""
        self._classifier = classifier_with_bias(net, context.example)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Clear the rows of the forgotten classes and fix their logits."""
        forgotten = list(context.forget)
        with torch.no_grad():
            self._classifier.weight[forgotten] = 0
            self._classifier.bias[forgotten] = _NO_OUTPUT
        return net
