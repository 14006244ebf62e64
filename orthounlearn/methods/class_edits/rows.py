"""The row of a forgotten class in the classifier, as a network that never saw the class has it."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orthounlearn.masking.transport import LinearMap
from orthounlearn.methods.base import Context
from orthounlearn.methods.class_edits.front import Inputs
from orthounlearn.methods.class_edits.inputs import Seen, whole_pass
from orthounlearn.methods.head import logits_layer

# Of the mean variance of a feature. A long row is soon a row of the class again: with 0.01 rows are
# 2 to 4 long, and cats relearned in a thin VGG-13 at rate 0.001 have an area of 35 %; with 1 rows
# are 0.6 to 0.7 long, and it is 0.1 % (after retraining 10 %, with rows of 0.8).
_RIDGE = 1.0
_IMAGES = 10_000  # that rows are fitted on


@dataclass(frozen=True)
class Rows:
    """Rows for classes that a classifier is to know nothing of.

    Attributes:
        classifier: The layer that computes the logits.
        weight_KC: Of each class; not a number where a class has none.
        bias_K: Of each class; not a number where a class has none.
    """

    classifier: nn.Linear
    weight_KC: Tensor
    bias_K: Tensor

    @torch.no_grad()
    def put(self, labels: Collection[int]) -> None:
        """Give these classes their rows; those that have none keep what they are left with."""
        for label in labels:
            if not self.bias_K[label].isnan():
                self.classifier.weight[label].copy_(self.weight_KC[label])
                self.classifier.bias[label].copy_(self.bias_K[label])

    def gone(self) -> list[int]:
        """Return the classes that have them already: earlier requests have removed these."""
        biases = zip(self.classifier.bias.tolist(), self.bias_K.tolist(), strict=True)
        return [
            label
            for label, (now, row) in enumerate(biases)  # one number tells nearly all apart
            if now == row and torch.equal(self.classifier.weight[label], self.weight_KC[label])
        ]


def strangers_rows(
    net: nn.Module, context: Context, seen: Seen, labels: Collection[int]
) -> Rows | None:
    r"""Fit the rows that tell of every image, equally surely, that it is not of a class.

    A network that never saw class c has learned of all its images that they are not of c, each as
    surely as the other. So the logit of c follows the others: with the input h of the classifier,
    w and b minimise

        E (w·h + b − log Σ_{j≠c} exp z_j − m)² + ρ ‖w‖²,   m = median (z_c − log Σ_{j≠c} exp z_j),

    over images of other classes; m is how surely the original says of half of them that they are
    not of c (their mean would be raised by those that look like c). Nothing of c comes in. To
    follow the others is what keeps c unlikely wherever images of c, or of other forgotten classes,
    are sent. By itself the row forgets nothing inside (`methods.zero_row`).

    Source: ours.

    Args:
        net: The original.
        context: For its seed and precision.
        seen: The images, and the original's logits.
        labels: The classes; one has no row if there are no images of others.

    Returns:
        The rows; None where the logits do not come straight out of a linear layer with a bias.
    """
    classifier = logits_layer(net, context.example)
    if classifier is None or classifier.bias is None:
        return None
    draws = torch.Generator().manual_seed(context.seed)
    some = torch.randperm(len(seen.inputs), generator=draws)[:_IMAGES]
    features_NC = _features(net, context, classifier, seen.inputs, some)
    logits_NK, labels_N = seen.logits_NK[some], seen.labels_N[some]
    weight_KC, bias_K = (
        torch.full_like(tensor, torch.nan) for tensor in (classifier.weight, classifier.bias)
    )
    for label in labels:
        others_N = labels_N != label
        if not others_N.any():
            continue
        rest_MJ = logits_NK[others_N].clone()
        rest_MJ[:, label] = -torch.inf
        rest_M = rest_MJ.logsumexp(1)
        wanted_M = rest_M + (logits_NK[others_N, label] - rest_M).median()
        fitted = LinearMap.fit(features_NC[others_N], wanted_M[:, None], ridge=_RIDGE)
        weight_KC[label] = fitted.weight_CD[:, 0]
        bias_K[label] = fitted.mean_D[0] - fitted.mean_C @ fitted.weight_CD[:, 0]
    return Rows(classifier, weight_KC, bias_K)


def _features(
    net: nn.Module, context: Context, classifier: nn.Linear, inputs: Inputs, chosen_N: Tensor
) -> Tensor:
    """Return what the classifier reads (N, C) of some images."""
    read: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, given: read.append(given[0].float()))
    try:
        whole_pass(net, context, inputs, chosen_N, layers=())
    finally:
        handle.remove()
    return torch.cat(read)
