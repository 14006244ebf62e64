"""Unlearning at the end of training."""

from collections.abc import Callable
from typing import cast

from lightning import Callback, LightningModule, Trainer
from torch import nn

from orthounlearn.lit.classifier import LitClassifier


class UnlearnOnFitEnd(Callback):
    """Carry out a request on the network that was just trained.

    The checkpoints that Lightning wrote during the fit hold the *original* model: they were saved
    before this hook runs. So the request writes a checkpoint of its own, and evaluates that.

    Args:
        request: Gets the trained network; unlearns a copy of it, stores and evaluates that.
    """

    def __init__(self, request: Callable[[nn.Module], None]) -> None:
        self.request = request

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the request once, on the first rank."""
        if trainer.is_global_zero:
            self.request(cast("LitClassifier", pl_module).net)
