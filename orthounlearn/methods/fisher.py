"""Fisher forgetting: noise where the retained classes do not need precision."""

from typing import Literal

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.gradients import check_sizes, mean_over_images, sampled_batches
from orthounlearn.methods.head import find_classifier

_EPSILON = 1e-8
_LARGEST, _LARGEST_OF_HEAD = 1e3, 1e2  # of 1/F
_LOUDER = 10.0  # variance of the head and of 1-d tensors, relative to the others
_VARIANCE_OF_ZEROED = 1e-4


class Fisher(UnlearningMethod):
    r"""θ ← θ₀ + √v·N(0, 1), v = α·min(1/(F + 10⁻⁸), c), F = E_{x∈D_r} Σ_y p_y(x) (∇ log p_y(x))².

    F is the diagonal of the Fisher matrix on the retained images, in eval mode; c is 10³, and 10²
    for the classifier. v is averaged over dimension 1 where there is one, and ten times as large
    in the classifier and in every 1-d tensor (biases, BatchNorm).

    Source: Golatkar, Achille, Soatto, "Eternal Sunshine of the Spotless Net", arXiv 1911.04933;
    AdityaGolatkar/SelectiveForgetting@4c02825 (α between 1e-9 and 1e-6 in later comparisons; 1e-7
    in SCRUB's).

    Deviations:
        F is the expectation of its definition, over single images. The released code takes the
        gradient of a batch with all its labels set to y, and squares that.
        `samples` limits F to a random share of each class: it takes K gradients per image.
        The classifier is found by running the network, not by its number of rows.
        The released class mode also draws the classifier's rows of the forgotten classes around 0
        with variance 10⁻³, which alone removes the class from the predictions. That is
        `forgotten_row=zeroed` here, and off by default.

    Args:
        alpha: Scale of the variance; 0 changes nothing.
        forgotten_row: "kept" treats the forgotten rows of the classifier like the others, "zeroed"
            is the released class mode.
        samples: Images that F is taken over; None takes all of D_r.
        batch_size: Images whose gradients are held at a time. Memory and speed, not the result.
    """

    uses = frozenset({"retain_train"})

    def __init__(
        self,
        *,
        alpha: float = 1e-7,
        forgotten_row: Literal["kept", "zeroed"] = "kept",
        samples: int | None = 1000,
        batch_size: int = 16,
    ) -> None:
        if alpha < 0:
            raise UsageError(f"Expected method.alpha of at least 0, but got {alpha}.")
        if forgotten_row not in ("kept", "zeroed"):
            raise UsageError(
                f"Expected method.forgotten_row to be kept or zeroed, but got {forgotten_row!r}."
            )
        check_sizes(samples=samples, batch_size=batch_size)
        self.alpha = alpha
        self.forgotten_row = forgotten_row
        self.samples = samples
        self.batch_size = batch_size

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Measure F and add the noise."""
        batches = sampled_batches(
            context, "retain_train", samples=self.samples, batch_size=self.batch_size
        )
        fisher = mean_over_images(net, batches, losses=_losses, measure=torch.square)
        classifier = find_classifier(net, context.example)
        head = {id(parameter) for parameter in classifier.parameters()}
        generator = torch.Generator(context.example.device).manual_seed(context.seed)
        for name, parameter in net.named_parameters():
            variance = self._variance(fisher[name], of_head=id(parameter) in head)
            if id(parameter) in head and self.forgotten_row == "zeroed":
                rows = list(context.forget)
                parameter[rows] = 0
                variance[rows] = _LOUDER * _VARIANCE_OF_ZEROED
            noise = torch.empty_like(parameter).normal_(generator=generator)
            parameter.add_(variance.sqrt() * noise)
        return net

    def _variance(self, fisher: Tensor, *, of_head: bool) -> Tensor:
        largest = _LARGEST_OF_HEAD if of_head else _LARGEST
        variance = self.alpha * (1 / (fisher + _EPSILON)).clamp(max=largest)
        if variance.ndim > 1:
            variance = variance.mean(1, keepdim=True).expand_as(fisher).clone()
        return variance * (_LOUDER if of_head or fisher.ndim == 1 else 1)


def _losses(logits_K: Tensor, label: Tensor) -> Tensor:  # noqa: ARG001 - all labels count
    """Return √p_y·log p_y for every y, √p_y held constant: their squared gradients sum up to F."""
    log_probabilities_K = logits_K.log_softmax(0)
    return log_probabilities_K.detach().exp().sqrt() * log_probabilities_K
