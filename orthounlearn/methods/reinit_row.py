"""The row of the class in the classifier drawn anew: a rival that forgets nothing inside."""

import math

import torch
from torch import nn

from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.head import find_classifier


class ReinitRow(UnlearningMethod):
    """Draw w_f, b_f ~ U(−1/√D, 1/√D) anew for every forgotten class f; D features.

    This is `nn.Linear`'s own initialisation: the rows are those of nn.Linear(D, |F|) made with
    the seed of the request.

    Source: a control; the first step of EU-k with k = 1 (Goel et al., "Towards Adversarial
    Evaluations for Inexact Machine Unlearning", arXiv 2201.06640), for the forgotten rows alone.
    No hyper-parameters.

    Deviations: none.
    """

    training_free = True

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Find the classifier."""
        self._classifier = find_classifier(net, context.example)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Draw the rows of the forgotten classes."""
        forgotten = list(context.forget)
        weight, bias = self._classifier.weight, self._classifier.bias
        bound = 1 / math.sqrt(self._classifier.in_features)
        # A generator of its own, on the CPU: the same rows in every run and on every device.
        generator = torch.Generator().manual_seed(context.seed)
        with torch.no_grad():
            rows = torch.empty(len(forgotten), self._classifier.in_features)
            weight[forgotten] = rows.uniform_(-bound, bound, generator=generator).to(weight)
            if bias is not None:
                biases = torch.empty(len(forgotten))
                bias[forgotten] = biases.uniform_(-bound, bound, generator=generator).to(bias)
        return net
