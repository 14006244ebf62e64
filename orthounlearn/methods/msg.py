"""Masked Small Gradients: weights of little use for telling the sets apart are drawn anew."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, LossMethod, Phase, Training
from orthounlearn.methods.layers import evaluating


class MaskedSmallGradients(LossMethod):
    """Draw the conv weights with the smallest |∇(CE_r − CE_f)| anew, then minimise CE(D_r).

    g = ∇ of mean CE over a random part of D_r, as large as D_f, minus ∇ of mean CE over D_f. In
    each convolution the `share` of the weights with the smallest |g| gets values of a Kaiming
    normal initialisation (fan out). In training these have their full gradient, the other conv
    weights `damping` times theirs.

    Source: Cadet et al., "Deep Unlearn: Benchmarking Machine Unlearning for Image
    Classification", arXiv 2410.01276 (its best method, from a Kaggle competition);
    xcadet/deepunlearn@6830ff6 (share 0.3, damping 0.1; SGD 1e-3, momentum 0.9, weight decay 5e-4,
    5 epochs, batch 64). The code speaks of SNIP, but scores by |g| alone, not by |weight·g|.

    Deviations: the learning rate is constant (there it rises and falls linearly). g is averaged
    over images in eval mode, so that it does not depend on the batch size (there: a sum of batch
    means). Biases of convolutions are kept; the code loses them when it exchanges the layers.

    Args:
        share: Of the weights of each convolution that are drawn anew, in [0, 1].
        damping: Factor of the gradient of the others, in [0, 1].
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        share: float,
        damping: float,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if not 0 <= share <= 1 or not 0 <= damping <= 1:
            raise UsageError(
                "Expected method.share and method.damping in [0, 1], "
                f"but got {share} and {damping}."
            )
        self.share = share
        self.damping = damping

    def start(self, net: nn.Module, context: Context) -> nn.Module:
        """Score the conv weights and draw the lowest of each layer anew."""
        names = [n for n, module in net.named_modules() if isinstance(module, nn.Conv2d)]
        weights = {name: net.get_parameter(name) for name in (f"{n}.weight" for n in names)}
        gradients = self._contrast(net, list(weights.values()), context)
        self._factors: dict[str, Tensor] = {}
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            lowest = gradient.abs().flatten().argsort(stable=True)
            chosen = torch.zeros_like(lowest, dtype=torch.bool)
            chosen[lowest[: round(self.share * len(lowest))]] = True
            chosen = chosen.view(weight.shape)
            fresh = nn.init.kaiming_normal_(
                torch.empty_like(weight), mode="fan_out", nonlinearity="relu"
            )
            with torch.no_grad():
                weight.copy_(torch.where(chosen, fresh, weight))
            self._factors[name] = torch.where(chosen, 1.0, self.damping).to(weight)
        return net

    def phases(self) -> Sequence[Phase]:
        """Return the training, which no longer reads the forget set."""
        return [Phase(self.loss, {"retain_train": ("retain_train",)}, self.epochs)]

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the cross-entropy of the retained images, with damped gradients."""
        images, labels = batch["retain_train"]
        damped = {
            name: _damped(net.get_parameter(name), factor) for name, factor in self._factors.items()
        }
        return F.cross_entropy(functional_call(net, damped, (images,)), labels)

    def _contrast(
        self, net: nn.Module, weights: Sequence[nn.Parameter], context: Context
    ) -> list[Tensor]:
        """Return the gradient of mean CE over a part of D_r minus that over D_f."""
        forgotten = context.batches("forget_train", batch_size=self.batch_size)
        with evaluating(net):
            of_forget, count = _mean_gradients(net, weights, forgotten)
            retained = context.batches("retain_train", batch_size=self.batch_size, shuffle=True)
            of_retain, _ = _mean_gradients(net, weights, _first(count, retained))
        return [r - f for r, f in zip(of_retain, of_forget, strict=True)]


def _damped(weight: Tensor, factor: Tensor) -> Tensor:
    """Return the weight, bit by bit, whose gradient gets multiplied by the factor."""
    fixed = weight.detach()
    return fixed + factor * (weight - fixed)


def _mean_gradients(
    net: nn.Module, weights: Sequence[nn.Parameter], batches: Iterable[Batch]
) -> tuple[list[Tensor], int]:
    """Return the gradients of the mean cross-entropy of all images, and how many there are."""
    sums = [torch.zeros_like(weight) for weight in weights]
    count = 0
    for images, labels in batches:
        loss = F.cross_entropy(net(images), labels, reduction="sum")
        for total, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            total += gradient
        count += len(labels)
    return [total / count for total in sums], count


def _first(count: int, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches until `count` images are reached."""
    for images, labels in batches:
        yield images[:count], labels[:count]
        count -= len(labels)
        if count <= 0:
            return
