"""Random labels under a saliency mask (SalUn)."""

from collections.abc import Iterable, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, Training
from orthounlearn.methods.layers import evaluating
from orthounlearn.methods.random_label import RandomLabel


class SalUn(RandomLabel):
    r"""Random labels, moving only the weights with the largest |Σ_{D_f} ∇CE| at θ₀.

    Source: Fan et al., "SalUn: Empowering Machine Unlearning via Gradient-Based Weight Saliency",
    arXiv 2310.12508; OPTML-Group/Unlearn-Saliency@a6e89fd (top 50 % of all weights jointly; SGD,
    momentum 0.9, weight decay 5e-4, 10 epochs, batch 256; the learning rate 0.013 is theirs for
    forgetting a random 10 % of CIFAR-10, and they state none for a class). After each step θ₀ is
    restored outside the mask and the momentum is cleared there, as in their code since February
    2026; before, weight decay and momentum moved these weights as well, and the published numbers
    come from that.

    Deviations:
        Those of `RandomLabel`.
        The gradients are taken at θ₀, of images as they are. Their script steps along each
        batch's gradient while it sums, and augments, so that its mask depends on a learning rate.
        Images count alike; their sum of batch means weights those of a short last batch more.

    Args:
        optimizer: See `LossMethod`.
        epochs: See `LossMethod`.
        batch_size: Images per step, also of the saliency.
        batch_norm: See `LossMethod`.
        share: Of the weights that may move, in (0, 1].
    """

    def __init__(
        self,
        *,
        share: float = 0.5,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if not 0 < share <= 1:
            raise UsageError(f"Expected method.share in (0, 1], but got {share}.")
        self.share = share

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Find the weights that stay as they are."""
        trained = self.parameters(net)
        batches = context.batches("forget_train", batch_size=self.batch_size)
        saliencies = summed_gradients(net, trained, batches)
        self._fixed = [~mask for mask in largest(saliencies, share=self.share)]
        self._originals = [parameter.detach().clone() for parameter in trained]
        return super().start(net, context)

    @torch.no_grad()
    def after_step(self, net: nn.Module, optimizer: Optimizer) -> None:
        """Undo outside the mask what weight decay and momentum have done."""
        trained = self.parameters(net)
        for parameter, original, fixed in zip(trained, self._originals, self._fixed, strict=True):
            parameter.copy_(torch.where(fixed, original, parameter))
            for moment in optimizer.state[parameter].values():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    moment.masked_fill_(fixed, 0)


def summed_gradients(
    net: nn.Module, parameters: Sequence[nn.Parameter], batches: Iterable[Batch]
) -> list[Tensor]:
    """Return the gradient of the summed cross-entropy of all images, in eval mode."""
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    with evaluating(net):
        for images, labels in batches:
            loss = F.cross_entropy(net(images), labels, reduction="sum")
            gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient
    return sums


def largest(tensors: Sequence[Tensor], *, share: float) -> list[Tensor]:
    """Return masks of the entries with the largest absolute values, ranked over all tensors."""
    magnitudes = torch.cat([tensor.abs().flatten() for tensor in tensors])
    order = magnitudes.argsort(descending=True, stable=True)
    chosen = torch.zeros_like(magnitudes, dtype=torch.bool)
    chosen[order[: round(share * len(magnitudes))]] = True
    parts = torch.split(chosen, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
