"""Gradient ascent on the forget set (NegGrad)."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.base import Batch, LossMethod


class GradientAscent(LossMethod):
    r"""Minimise −CE(D_f) from the original weights, BatchNorm statistics frozen.

    Source: the GA baseline of Jia et al., arXiv 2304.04934; OPTML-Group/Unlearn-Sparse@80ba55d and
    Unlearn-Saliency@a6e89fd (class-wise learning rate 1e-4, 5 to 10 epochs).

    Deviations:
        Statistics are frozen, since forget-only batches in train mode destroy them and the network
        with them.
        No early stop at some validation accuracy of the class: the number of epochs is tuned on
        that accuracy instead.
        The learning rate is searched from 1e-6 to 1e-2; later comparisons go from 1e-5 to 0.1.
    """

    uses = frozenset({"forget_train"})

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the negated cross-entropy of the forgotten images."""
        images, labels = batch["forget_train"]
        return -F.cross_entropy(net(images), labels)
