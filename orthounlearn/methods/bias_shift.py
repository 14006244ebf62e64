"""The bias of the class lowered just far enough: a rival that forgets nothing inside."""

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.layers import classifier_with_bias, evaluating

_RESOLUTION = 1e-4
"""Of the shift: far above the rounding of float32 logits, far below their differences."""


class BiasShift(UnlearningMethod):
    """b_f := b_f − k for every forgotten class f, with the smallest k ≥ 0 that forgets.

    k is found by bisection, such that at most the share `target` of the forgotten training images
    is still given to its own class. Nothing but these biases changes.

    Source: BiasShift (Zheng et al., "Classification-Head Bias in Class-Level Machine Unlearning",
    arXiv 2605.08730; zwd2024@2461ac3). There k is a given number, one for all forgotten classes.

    Deviations: k is not given but found, so that one setting fits every network; it is the
    smallest to within 10⁻⁴.

    Args:
        target: Largest share of the forgotten training images that may still be recognised, in
            [0, 1).
        batch_size: Images per forward pass; plays no part in the result.
    """

    uses = frozenset({"forget_train"})

    def __init__(self, *, target: float, batch_size: int) -> None:
        if not 0 <= target < 1:
            raise UsageError(f"Expected method.target in [0, 1), but got {target}.")
        if batch_size < 1:
            raise UsageError(f"Expected method.batch_size of at least 1, but got {batch_size}.")
        self.target = target
        self.batch_size = batch_size

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Find the classifier; give it a bias when it has none."""
        self._classifier = classifier_with_bias(net, context.example)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Measure the margins of the forgotten images and lower the biases."""
        shift = smallest_shift(self._margins(net, context), target=self.target)
        with torch.no_grad():
            self._classifier.bias[list(context.forget)] -= shift
        return net

    def _margins(self, net: nn.Module, context: Context) -> Tensor:
        """Return how far each image's own logit lies above the retained ones (N,).

        A shift common to the forgotten classes keeps their order, so an image that another
        forgotten class wins is never recognised: −∞.
        """
        forgotten = torch.tensor(context.forget, device=context.example.device)
        margins = []
        with evaluating(net), torch.inference_mode():
            batches = context.batches("forget_train", batch_size=self.batch_size)
            for images, labels in batches:
                logits_BK = net(images)
                best, winner = logits_BK[:, forgotten].max(1)
                retained = logits_BK.index_fill(1, forgotten, -torch.inf).amax(1)
                margin = (best - retained).masked_fill(forgotten[winner] != labels, -torch.inf)
                margins.append(margin)
        return torch.cat(margins).cpu().double()


def smallest_shift(margins_N: Tensor, *, target: float) -> float:
    """Return the smallest k ≥ 0 such that at most the share `target` of the margins exceeds k.

    Args:
        margins_N: float64; −∞ for an image that no shift affects.
        target: In [0, 1).
    """

    def share_above(shift: float) -> float:
        # Margins within the resolution count as above: rounding may still tip them either way.
        return (margins_N > shift - _RESOLUTION / 2).double().mean().item()

    if share_above(0.0) <= target:
        return 0.0
    low, high = 0.0, margins_N.max().item() + _RESOLUTION
    while high - low > _RESOLUTION / 2:
        middle = (low + high) / 2
        if share_above(middle) <= target:
            high = middle
        else:
            low = middle
    return high
