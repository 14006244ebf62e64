"""Random labels for the forget set, true ones for the rest (amnesiac unlearning)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.methods.base import Batch, Context, LossMethod, Phase
from orthounlearn.methods.teachers import forgotten_classes


class RandomLabel(LossMethod):
    r"""Minimise CE on the shuffled union of D_r and D_f with y′ ~ U({0..K−1} ∖ {y}) on D_f.

    Source: Graves et al., "Amnesiac Machine Learning", arXiv 2010.10981, as the RL baseline of
    Fan et al., "SalUn", arXiv 2310.12508; OPTML-Group/Unlearn-Saliency@a6e89fd (SGD 0.01, momentum
    0.9, weight decay 5e-4, 10 epochs, batch 256).

    y′ is drawn anew each time an image comes up, as in SalUn's code, which draws for each epoch
    (amnesiac unlearning draws once per image, but a batch does not say which images it holds): the
    target is then the uniform distribution over the other classes, not one wrong class that could
    be learned by heart. Of several forgotten classes, one's images may be given another's label,
    as the formula says.

    Deviations:
        Never the true label; SalUn's draws may repeat it.
        The shuffled union on every data set. SalUn's code takes it for CIFAR-100 and Tiny
        ImageNet; for CIFAR-10 and SVHN it takes all of D_f before all of D_r, another algorithm.
    """

    uses = frozenset({"forget_train", "retain_train"})

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Note the forgotten classes."""
        self._forgotten_K = forgotten_classes(context)
        return net

    def phases(self) -> Sequence[Phase]:
        """Return the one phase, on both sets shuffled together."""
        return [Phase(self.loss, {"all": ("forget_train", "retain_train")}, self.epochs)]

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy with the relabelled images."""
        images, labels = batch["all"]
        return F.cross_entropy(net(images), relabel(labels, self._forgotten_K))


def relabel(labels_B: Tensor, forgotten_K: Tensor) -> Tensor:
    """Return labels in which each one of a forgotten class is replaced by a random other class.

    Args:
        labels_B: int64.
        forgotten_K: bool, K > 1.
    """
    classes = len(forgotten_K)
    steps_B = torch.randint(1, classes, labels_B.shape, device=labels_B.device)
    return torch.where(forgotten_K[labels_B], (labels_B + steps_B) % classes, labels_B)
