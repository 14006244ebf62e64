"""The classifier trained anew without the class: a rival that forgets nothing inside."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.head import find_classifier
from orthounlearn.methods.layers import evaluating

_GRADIENT = 1e-7
"""Largest entry of the gradient at the solution."""
_ITERATIONS = 2000


class RefitHead(UnlearningMethod):
    """(W, b) := argmin of mean CE(W h(x) + b, y) over D_r + λ/2·(‖W‖² + ‖b‖²), with h(x) as it is.

    The problem is strictly convex, so the old classifier leaves no trace in the new one. The rows
    of the forgotten classes get what this training gives them: no image asks for them. The
    features h, BatchNorm statistics included, stay bit by bit.

    Source: a control, the last-layer retraining of EU-k with k = 1 (Goel et al., "Towards
    Adversarial Evaluations for Inexact Machine Unlearning", arXiv 2201.06640); λ is the weight
    decay of the usual recipe, 5e-4.

    Deviations: solved to its optimum by L-BFGS, in float64, on images without augmentation,
    instead of some epochs of SGD. The bias decays as well: without that the bias of a class that
    never occurs would go to −∞.

    Args:
        weight_decay: λ, above 0.
        batch_size: Images per forward pass; plays no part in the result.
    """

    uses = frozenset({"retain_train"})

    def __init__(self, *, weight_decay: float, batch_size: int) -> None:
        if weight_decay <= 0:
            raise UsageError(f"Expected method.weight_decay above 0, but got {weight_decay}.")
        if batch_size < 1:
            raise UsageError(f"Expected method.batch_size of at least 1, but got {batch_size}.")
        self.weight_decay = weight_decay
        self.batch_size = batch_size

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Find the classifier."""
        self._classifier = find_classifier(net, context.example)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Fit the classifier to the features of the retained images."""
        features_ND, labels_N = self._features(net, context)
        if self._classifier.bias is not None:
            features_ND = F.pad(features_ND, (0, 1), value=1.0)
        rows_KD = fit_softmax(
            features_ND,
            labels_N,
            num_classes=self._classifier.out_features,
            weight_decay=self.weight_decay,
        )
        with torch.no_grad():
            self._classifier.weight.copy_(rows_KD[:, : self._classifier.in_features])
            if self._classifier.bias is not None:
                self._classifier.bias.copy_(rows_KD[:, -1])
        return net

    def _features(self, net: nn.Module, context: Context) -> tuple[Tensor, Tensor]:
        """Return what the classifier reads (N, D), and the labels (N,)."""
        read: list[Tensor] = []
        seen: list[Tensor] = []
        handle = self._classifier.register_forward_pre_hook(lambda _, inputs: read.append(*inputs))
        try:
            with evaluating(net), torch.no_grad():
                batches = context.batches("retain_train", batch_size=self.batch_size)
                for images, labels in batches:
                    net(images)
                    seen.append(labels)
        finally:
            handle.remove()
        return torch.cat(read), torch.cat(seen)


def fit_softmax(
    features_ND: Tensor, labels_N: Tensor, *, num_classes: int, weight_decay: float
) -> Tensor:
    """Return the rows (K, D) that minimise mean cross-entropy + weight_decay/2 ‖rows‖², float64.

    Raises:
        UsageError: The solver did not converge.
    """
    if features_ND.device.type == "mps":  # has no float64
        features_ND, labels_N = features_ND.cpu(), labels_N.cpu()
    features_ND = features_ND.double()
    rows_KD = features_ND.new_zeros(num_classes, features_ND.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS(
        [rows_KD],
        max_iter=_ITERATIONS,
        tolerance_grad=_GRADIENT,
        tolerance_change=0.0,  # only the gradient tells that a convex problem is solved
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(features_ND @ rows_KD.T, labels_N)
        loss = loss + weight_decay / 2 * rows_KD.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(objective)  # type: ignore[no-untyped-call]
        objective()
    left = rows_KD.grad.abs().max().item() if rows_KD.grad is not None else float("nan")
    if not left <= 10 * _GRADIENT:
        raise UsageError(
            f"Expected the classifier to converge in {_ITERATIONS} steps, but its gradient is "
            f"still {left:.1e}; raise method.weight_decay, which is {weight_decay}."
        )
    return rows_KD.detach()
