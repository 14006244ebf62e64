"""Impair the network with images that it is most wrong about, then repair it (UNSIR)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, LossMethod, Phase, Training
from orthounlearn.methods.layers import evaluating
from orthounlearn.methods.teachers import draw_share

_NOISE_LR = 0.1
"""Of Adam on the pixels, which have unit variance."""


class Unsir(LossMethod):
    r"""Impair: CE on retained images and on noise N_f labelled f. Repair: CE on retained images.

    The noise of each forgotten class f starts as N(0, 1) and minimises
    −CE(N_f, f) + λ·mean ‖N_f‖² with θ₀ fixed. D_f itself is not read.

    Source: Tarun et al., "Fast Yet Effective Machine Unlearning", arXiv 2111.08947;
    vikram2000b/Fast-Machine-Unlearning@252bc92 (CIFAR-10: noise of 256 images, λ 0.1, 40
    steps of Adam 0.1; impair for 1 epoch of Adam 0.02 on 20 copies of the noise and 1000 images of
    each retained class; repair for 1 epoch of a new Adam 0.01 on the same 1000; batch 256).

    Deviations:
        Noise is labelled with its own class; their code labels that of every class 0.
        The noise is learned with BatchNorm's running statistics, which it leaves alone; theirs are
        in train mode, where noise of one class shifts them.
        1000 images of each class are a random 20 % of D_r that differs between the two phases, and
        noise is drawn with replacement in the same proportion to them; see `draw_share`.
        Retained images are augmented as in training.

    Args:
        optimizer: Its learning rate is that of impairing.
        epochs: Passes of either phase.
        batch_size: Retained images per step before all but `retain_share` are left out.
        batch_norm: See `LossMethod`.
        repair_lr: Learning rate of repairing, above 0.
        retain_share: Share of D_r, in (0, 1].
        noise_ratio: Noise images of each forgotten class per retained image, above 0.
        noise_images: Different ones of each class.
        noise_steps: Steps that they are learned in, at least 0.
        noise_penalty: λ ≥ 0.
    """

    uses = frozenset({"retain_train"})

    def __init__(
        self,
        *,
        repair_lr: float = 0.01,
        retain_share: float = 0.2,
        noise_ratio: float = 0.57,
        noise_images: int = 256,
        noise_steps: int = 40,
        noise_penalty: float = 0.1,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if not 0 < retain_share <= 1:
            raise UsageError(f"Expected method.retain_share in (0, 1], but got {retain_share}.")
        if repair_lr <= 0 or noise_ratio <= 0:
            raise UsageError(
                "Expected method.repair_lr and method.noise_ratio above 0, "
                f"but got {repair_lr} and {noise_ratio}."
            )
        if noise_images < 1 or noise_steps < 0 or noise_penalty < 0:
            raise UsageError(
                "Expected method.noise_images of at least 1, and method.noise_steps and "
                f"method.noise_penalty of at least 0, but got {noise_images}, {noise_steps} and "
                f"{noise_penalty}."
            )
        self.repair_lr = repair_lr
        self.retain_share = retain_share
        self.noise_ratio = noise_ratio
        self.noise_images = noise_images
        self.noise_steps = noise_steps
        self.noise_penalty = noise_penalty

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Learn the noise of each forgotten class."""
        device, shape = context.example.device, context.example.shape[1:]
        noises = []
        for label in context.forget:
            labels = torch.full((self.noise_images,), label, device=device)
            start = torch.randn(self.noise_images, *shape, device=device)
            noises.append(
                learn_noise(net, start, labels, steps=self.noise_steps, penalty=self.noise_penalty)
            )
        self._noise = torch.cat(noises)
        self._noise_labels = torch.tensor(context.forget, device=device).repeat_interleave(
            self.noise_images
        )
        self._forgotten = len(context.forget)
        return net

    def phases(self) -> Sequence[Phase]:
        """Return impairing and repairing."""
        impair = Phase(self.loss, {"retain_train": ("retain_train",)}, self.epochs)
        return [impair, replace(impair, loss=self.repair_loss, begin=self._start_afresh)]

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the impairing cross-entropy, of noise and retained images together."""
        images, labels = self._retained(batch)
        count = round(self.noise_ratio * len(labels) * self._forgotten)
        drawn = torch.randint(len(self._noise), (count,), device=labels.device)
        logits = net(torch.cat([images, self._noise[drawn]]))
        return F.cross_entropy(logits, torch.cat([labels, self._noise_labels[drawn]]))

    def repair_loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the repairing cross-entropy, of retained images."""
        images, labels = self._retained(batch)
        return F.cross_entropy(net(images), labels)

    def _start_afresh(self, net: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002 - a hook
        """Turn the optimiser into a new one with the learning rate of repairing."""
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = self.repair_lr

    def _retained(self, batch: Mapping[str, Batch]) -> Batch:
        images, labels = batch["retain_train"]
        nobody_B = torch.zeros_like(labels, dtype=torch.bool)
        drawn_B = draw_share(len(labels), self.retain_share, always_B=nobody_B)
        return images[drawn_B], labels[drawn_B]


def learn_noise(
    net: nn.Module, start: Tensor, labels_B: Tensor, *, steps: int, penalty: float
) -> Tensor:
    """Return images that the network is as wrong about as a penalty on their size allows.

    Args:
        net: Fixed, in eval mode.
        start: (B, C, H, W), normalised.
        labels_B: What they are not to look like.
        steps: Of Adam on −CE + penalty · mean ‖x‖².
        penalty: λ.
    """
    noise = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([noise], lr=_NOISE_LR)
    with evaluating(net):
        for _ in range(steps):
            size = noise.square().sum((1, 2, 3)).mean()
            loss = penalty * size - F.cross_entropy(net(noise), labels_B)
            (noise.grad,) = torch.autograd.grad(loss, [noise])
            optimizer.step()
    return noise.detach()
