"""Fine-tuning on the retain set: catastrophic forgetting put to use."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.base import Batch, LossMethod


class FineTune(LossMethod):
    r"""Minimise CE(D_r) from the original weights.

    Source: the FT baseline of Jia et al., "Model Sparsity Can Simplify Machine Unlearning",
    arXiv 2304.04934; OPTML-Group/Unlearn-Sparse@80ba55d and Unlearn-Saliency@a6e89fd (SGD 0.01,
    momentum 0.9, weight decay 5e-4, 10 epochs, batch 256).

    Deviations: none.
    """

    uses = frozenset({"retain_train"})

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy of the retained images."""
        images, labels = batch["retain_train"]
        return F.cross_entropy(net(images), labels)
