"""Distillation from the original model without its belief in the true class (DELETE)."""

from collections.abc import Mapping

from torch import Tensor, nn

from orthounlearn.methods.base import Batch, Context, LossMethod
from orthounlearn.methods.teachers import frozen_copy, kl_divergence


class Delete(LossMethod):
    r"""Minimise KL(q ‖ p_θ) on D_f with q = softmax(z′), z′ = logits of θ₀ and z′_y = −∞.

    What the original gave to the true class is shared out among the others in their ratios.
    The retained data are not read.

    Source: Zhou et al., "Decoupled Distillation to Erase: A General Unlearning Method for Any
    Class-centric Tasks" (DELETE), CVPR 2025, arXiv 2503.23751; shaaaaron/DELETE@60018a1 (SGD,
    momentum 0.9, no weight decay, 20 epochs, batch 128; the learning rate is 1e-4 in the
    configuration for CIFAR-10 and 5e-5 in those for CIFAR-100 and Tiny ImageNet, but 1e-3 on the
    command line that the authors give for CIFAR-10). Of several forgotten classes only an image's
    own is masked.

    Deviations:
        BatchNorm statistics are frozen on every data set (theirs: only for one class of Tiny
        ImageNet), since forget-only batches in train mode destroy them.
        The default learning rate is 1e-4 on every data set; tuning searches from 1e-5 to 0.1.
    """

    uses = frozenset({"forget_train"})

    def start(self, net: nn.Module, context: Context) -> nn.Module:  # noqa: ARG002 - a hook
        """Keep the original as the teacher."""
        self._teacher = frozen_copy(net)
        return net

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the divergence from the masked teacher."""
        images, labels = batch["forget_train"]
        masked_BK = self._teacher(images).scatter(1, labels[:, None], float("-inf"))
        return kl_divergence(net(images), masked_BK)
