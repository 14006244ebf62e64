"""The orthogonal-kernel loss as a callback."""

from typing import cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from orthounlearn.lit.classifier import LitClassifier
from orthounlearn.orthogonality.functional import gram_error
from orthounlearn.orthogonality.penalties import Penalty


class Orthogonality(Callback):
    """Register a penalty as a term of the training loss, and log the Gram error of each kernel.

    A callback cannot add to a loss by itself: in `on_before_backward` the penalty would count
    once per accumulated batch, and in `on_after_backward` it would escape the fp16 scaler. So it
    registers the penalty and `training_step` sums the terms.

    Args:
        penalty: The regulariser with its weight, schedule and choice of layers.
    """

    def __init__(self, penalty: Penalty) -> None:
        self.penalty = penalty

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the term to the loss of a fit."""
        if stage != "fit":
            return
        module = cast("LitClassifier", pl_module)

        def term(net: nn.Module) -> Tensor:
            progress = trainer.global_step / max(1, int(trainer.estimated_stepping_batches))
            value: Tensor = self.penalty(net, min(1.0, progress), trainer.global_step)
            return value

        module.register_term("orthogonality", term)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Log ‖G − I‖² of every penalised kernel and their sum."""
        module = cast("LitClassifier", pl_module)
        with torch.no_grad():
            errors = {
                name: gram_error(weight)
                for name, weight in self.penalty.kernels(module.net).items()
            }
        for name, error in errors.items():
            pl_module.log(f"gram_error/{name}", error, rank_zero_only=True)
        pl_module.log("gram_error", torch.stack(list(errors.values())).sum(), rank_zero_only=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Remove the term."""
        if stage == "fit":
            cast("LitClassifier", pl_module).remove_term("orthogonality")
