"""Fine-tuning towards few weights (ℓ1-sparse)."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Phase, Training
from orthounlearn.methods.fine_tune import FineTune


class L1Sparse(FineTune):
    r"""Minimise CE(D_r) + a_t ‖θ‖₁ with a_t = a (1 − t / (E − E₀)), 0 in the last E₀ of E epochs.

    Source: Jia et al., "Model Sparsity Can Simplify Machine Unlearning", arXiv 2304.04934;
    OPTML-Group/Unlearn-Sparse@80ba55d (SGD 0.01, 10 epochs, E₀ = 0; ‖·‖₁ of all parameters, those
    of BatchNorm too). Their code's a = 0.2 is a placeholder; those who ran it again take 1e-4 to
    5e-4.

    Deviations: none.

    Args:
        optimizer: See `LossMethod`.
        epochs: E.
        batch_size: See `LossMethod`.
        batch_norm: See `LossMethod`.
        strength: a ≥ 0.
        no_l1_epochs: E₀ in 0..E−1.
    """

    def __init__(
        self,
        *,
        strength: float = 5e-4,
        no_l1_epochs: int = 0,
        **training: Unpack[Training],
    ) -> None:
        super().__init__(**training)
        if strength < 0:
            raise UsageError(f"Expected method.strength of at least 0, but got {strength}.")
        if not 0 <= no_l1_epochs < self.epochs:
            raise UsageError(
                f"Expected method.no_l1_epochs from 0 to {self.epochs - 1}, one less than "
                f"method.epochs, but got {no_l1_epochs}."
            )
        self.strength = strength
        self.no_l1_epochs = no_l1_epochs

    def strengths(self) -> list[float]:
        """Return a_t of each epoch."""
        sparse = self.epochs - self.no_l1_epochs
        return [self.strength * max(0.0, 1 - epoch / sparse) for epoch in range(self.epochs)]

    def phases(self) -> Sequence[Phase]:
        """Return a phase of one epoch for each strength."""
        return [
            Phase(partial(self.sparse_loss, strength=a), {"retain_train": ("retain_train",)}, 1)
            for a in self.strengths()
        ]

    def sparse_loss(self, net: nn.Module, batch: Mapping[str, Batch], *, strength: float) -> Tensor:
        """Return the cross-entropy plus the weighted norm."""
        norms = [parameter.abs().sum() for parameter in self.parameters(net)]
        return self.loss(net, batch) + strength * torch.stack(norms).sum()
