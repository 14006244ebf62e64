"""Boundary Shrink: each forgotten image is given to the class on the other side of its boundary."""

import copy
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, LossMethod, Training


class BoundaryShrink(LossMethod):
    """Minimise CE(x, y′) on D_f, with y′ = argmax over c ∉ F of θ₀(x′)_c the nearest other class.

    x′ = round₂₅₅(clamp₀₁(x + ε·sign ∇ₓCE(θ₀(x), y))), in pixels of [0, 1], is an adversarial
    image of the original model θ₀ (FGSM), drawn anew for each augmented image.

    Source: Chen et al., "Boundary Unlearning: Rapid Forgetting of Deep Networks via Shifting the
    Decision Boundary", CVPR 2023, arXiv 2303.11570; TY-LEE-KR@19f9f23 (ε 0.1; SGD 1e-5, momentum
    0.9, 10 epochs, batch 64). The optional curvature term and weights of that code are not its
    method and left out.

    Deviations: the forgotten classes never are y′. The paper asks for the nearest incorrect
    class; its code takes the argmax over all classes, which teaches an image whose attack fails
    its own class again. Where the attack on a single class succeeds, both agree. BatchNorm
    statistics are frozen, since forget-only batches in train mode destroy them.

    Args:
        epsilon: ε, largest change of a pixel (of [0, 1]) before rounding, in (0, 1].
    """

    uses = frozenset({"forget_train"})

    def __init__(
        self,
        *,
        epsilon: float,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if not 0 < epsilon <= 1:
            raise UsageError(f"Expected method.epsilon in (0, 1], but got {epsilon}.")
        self.epsilon = epsilon

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Keep the original model, to find the neighbours with."""
        device = context.example.device
        self._original = copy.deepcopy(net).eval().requires_grad_(False)
        self._forgotten = torch.tensor(context.forget, device=device)
        self._mean_C11 = torch.tensor(context.mean, device=device)[:, None, None]
        self._std_C11 = torch.tensor(context.std, device=device)[:, None, None]
        return net

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy of the forgotten images with their neighbours' labels."""
        images, labels = batch["forget_train"]
        return F.cross_entropy(net(images), self.neighbours(images, labels))

    def neighbours(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the nearest retained class (B,) of each image."""
        attacked = fgsm(
            self._original,
            images,
            labels,
            epsilon=self.epsilon,
            mean_C11=self._mean_C11,
            std_C11=self._std_C11,
        )
        with torch.no_grad():
            logits_BK: Tensor = self._original(attacked)
        return logits_BK.index_fill(1, self._forgotten, -torch.inf).argmax(1)


def fgsm(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    mean_C11: Tensor,
    std_C11: Tensor,
) -> Tensor:
    """Return images moved by ε against their labels, as an 8-bit file would hold them.

    Args:
        net: In eval mode.
        images: Normalised (B, C, H, W).
        labels: (B,).
        epsilon: Step in pixels of [0, 1].
        mean_C11: Of the normalisation (C, 1, 1).
        std_C11: Of the normalisation (C, 1, 1).

    Returns:
        Normalised (B, C, H, W).
    """
    # Gradients of a confident network are tiny, and those that half precision flushes to zero
    # would leave their pixels unmoved.
    with torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
        inputs = images.detach().float().requires_grad_()
        loss = F.cross_entropy(net(inputs), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, inputs)
    # The normalisation has a positive scale, so the sign is that of the gradient in pixels.
    pixels = images * std_C11 + mean_C11 + epsilon * gradient.sign()
    return ((pixels.clamp(0, 1) * 255).round() / 255 - mean_C11) / std_C11
