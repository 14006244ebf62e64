"""Selective synaptic dampening, with labels (SSD) and without (LFSSD)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Context, SplitName, UnlearningMethod
from orthounlearn.methods.gradients import check_sizes, mean_over_images, sampled_batches


class SSD(UnlearningMethod):
    r"""Where I_f > α·I_D: θ ← θ·min(λ·I_D/I_f, 1), with I = E_x (∇_θ CE(x, y))² in eval mode.

    I_D is the mean over the whole train set and known before the request, I_f the one over D_f.

    Source: Foster, Schoepf, Brintrup, "Fast Machine Unlearning Without Retraining Through
    Selective Synaptic Dampening", arXiv 2308.07707; if-loops/selective-synaptic-dampening@cdfdc0e
    (ResNet-18: α 10, λ 1; ViT: α 5; PinsFaces: α 50, λ 0.1).

    Deviations:
        The squares are those of single images. The released code squares the mean gradient of
        each batch, so that its importance depends on the batch size.
        So I_f/I_D cannot exceed |D|/|D_f|, 10 for one of ten equal classes: there the published α
        chooses nothing, and a smaller one has to be tuned.
        `samples` can limit both means to a random share of each class, since gradients of single
        images are slow; null is the published rule.

    Args:
        alpha: How much more important for D_f a weight must be to be chosen; positive.
        dampening: λ; positive.
        samples: Images that each of the two means is taken over; None takes all.
        batch_size: Images whose gradients are held at a time. Memory and speed, not the result.
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    uses = frozenset({"forget_train"})

    def __init__(
        self,
        *,
        alpha: float = 10.0,
        dampening: float = 1.0,
        samples: int | None = None,
        batch_size: int = 16,
    ) -> None:
        if alpha <= 0 or dampening <= 0:
            raise UsageError(
                "Expected method.alpha and method.dampening to be positive, "
                f"but got {alpha} and {dampening}."
            )
        check_sizes(samples=samples, batch_size=batch_size)
        self.alpha = alpha
        self.dampening = dampening
        self.samples = samples
        self.batch_size = batch_size

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Measure I_D."""
        self._of_all = self._importance(net, context, "forget_train", "retain_train")

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Measure I_f and dampen."""
        of_forget = self._importance(net, context, "forget_train")
        for name, parameter in net.named_parameters():
            of_all = self._of_all[name]
            factor = (self.dampening * of_all / of_forget[name]).clamp(max=1)
            parameter.mul_(torch.where(of_forget[name] > self.alpha * of_all, factor, 1))
        return net

    def losses(self, logits_K: Tensor, label: Tensor) -> Tensor:
        """Return the loss of one image (1,) whose gradients count."""
        return F.cross_entropy(logits_K, label)[None]

    def measure(self, gradient: Tensor) -> Tensor:
        """Return the importance that one gradient stands for."""
        return gradient.square()

    def _importance(
        self, net: nn.Module, context: Context, *splits: SplitName
    ) -> dict[str, Tensor]:
        batches = sampled_batches(
            context, *splits, samples=self.samples, batch_size=self.batch_size
        )
        return mean_over_images(net, batches, losses=self.losses, measure=self.measure)


class LFSSD(SSD):
    r"""SSD without labels: I = E_x |∇_θ ‖f(x)‖₂²|, with f(x) the logits.

    Source: Foster, Schoepf, Brintrup, "Loss-Free Machine Unlearning", arXiv 2402.19308, after the
    sensitivity of memory aware synapses.

    Deviations: those of `SSD`, whose defaults for α and λ are used, since the paper's own could
    not be checked. The images of D_f are told apart by their labels; the formula reads none.
    """

    def losses(self, logits_K: Tensor, label: Tensor) -> Tensor:  # noqa: ARG002 - without labels
        """Return ‖f(x)‖₂² (1,)."""
        return logits_K.square().sum()[None]

    def measure(self, gradient: Tensor) -> Tensor:
        """Return |∇|."""
        return gradient.abs()
