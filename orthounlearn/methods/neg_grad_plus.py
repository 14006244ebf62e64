"""Descent on the retain set and ascent on the forget set in one step (NegGrad+)."""

from collections.abc import Mapping
from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, LossMethod, Training


class NegGradPlus(LossMethod):
    r"""Minimise α·CE(D_r) − (1 − α)·CE(D_f): one batch of each set per step.

    Source: Kurmanji et al., "Towards Unbounded Machine Unlearning", arXiv 2302.09880;
    meghdadk/SCRUB@98ffb11, kairanzhao/RUM@f593c9d (SGD 0.01, 5 epochs over D_r; α 0.95 to 0.9999,
    tuned).

    Deviations:
        BatchNorm statistics are frozen for both batches (`batch_norm: train` is the authors' code),
        since theirs normalises the forgotten batch with its own statistics, which then make up half
        of the running ones, and the network collapses to what they are. To freeze them for that
        batch alone works no better: the ascent then finds the damage that only the running
        statistics do, and the descent on a batch with its own does not see it.
        If D_f is the longer set, an epoch passes over it and D_r cycles; theirs ends with D_r.

    Args:
        optimizer: See `LossMethod`.
        epochs: Passes over the longer set.
        batch_size: Images of each set per step.
        batch_norm: See `LossMethod`.
        alpha: Weight of the retained images, in [0, 1].
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        alpha: float = 0.95,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if not 0 <= alpha <= 1:
            raise UsageError(f"Expected method.alpha in [0, 1], but got {alpha}.")
        self.alpha = alpha

    def loss(self, net: nn.Module, batch: Mapping[str, Batch]) -> Tensor:
        """Return the weighted difference of the two cross-entropies."""
        retained, forgotten = (
            F.cross_entropy(net(images), labels)
            for images, labels in (batch["retain_train"], batch["forget_train"])
        )
        return self.alpha * retained - (1 - self.alpha) * forgotten
