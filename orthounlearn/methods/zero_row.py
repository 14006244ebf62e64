"""The row of the class in the classifier set to zero: a rival that forgets nothing inside."""

import torch
from torch import nn

from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.head import find_classifier


class ZeroRow(UnlearningMethod):
    """Set w_f := 0 and b_f := 0 for every forgotten class f, so that its logit is exactly 0.

    The logit is 0, not −∞: an image whose other logits are all negative is still given to f.

    Source: `nc_prune` in ycgao1/CMF_Unlearning@e6e94af; the transfer step of ERM-KTP (Lin et al.,
    "ERM-KTP: Knowledge-Level Machine Unlearning via Knowledge Transfer", CVPR 2023) and the class
    mode of Fisher forgetting contain the same edit. No hyper-parameters.

    Deviations: none.
    """

    training_free = True

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Find the classifier."""
        self._classifier = find_classifier(net, context.example)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Clear the rows of the forgotten classes."""
        forgotten = list(context.forget)
        with torch.no_grad():
            self._classifier.weight[forgotten] = 0
            if self._classifier.bias is not None:
                self._classifier.bias[forgotten] = 0
        return net
