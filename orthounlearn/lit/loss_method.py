"""The training loop of a loss method, in a Trainer of its own: an outer one is not rebound."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from orthounlearn.data.augment import BatchTransform
from orthounlearn.errors import DivergedError
from orthounlearn.methods.base import Batch, LossMethod, Phase


class LitPhase(LightningModule):
    """One phase: a step is one batch of each of its sets, augmented as in training."""

    def __init__(
        self,
        net: nn.Module,
        method: LossMethod,
        phase: Phase,
        *,
        optimizer: Optimizer,
        transform: BatchTransform,
        seed: int,
    ) -> None:
        super().__init__()
        self.net = net
        self.method = method
        self.phase = phase
        self.transform = transform
        self._optimizer = optimizer
        self._seed = seed
        self._generator: torch.Generator | None = None

    def on_train_start(self) -> None:
        """Start the random stream of the augmentation, and the phase."""
        self._generator = torch.Generator(self.device).manual_seed(self._seed)
        if self.phase.begin is not None:
            self.phase.begin(self.net, self._optimizer)

    def on_train_epoch_start(self) -> None:
        """Train, with BatchNorm statistics frozen if the method asks for it.

        Set here, since `Trainer.fit` leaves modes alone, and a loaded network comes in eval mode.
        """
        self.net.train()
        if self.method.batch_norm == "frozen":
            for module in self.net.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def on_after_batch_transfer(
        self,
        batch: Mapping[str, Batch],
        dataloader_idx: int,  # noqa: ARG002 - Lightning's hook
    ) -> dict[str, Batch]:
        """Augment each set's batch on the device."""
        return {
            name: (self.transform.train(images, generator=self._generator), labels)
            for name, (images, labels) in batch.items()
        }

    def training_step(self, batch: Mapping[str, Batch], batch_idx: int) -> Tensor:
        """Return the phase's loss."""
        loss = self.phase.loss(self.net, batch)
        if not torch.isfinite(loss):
            raise DivergedError(
                f"{type(self.method).__name__} diverged: the loss is {loss.item()} in epoch "
                f"{self.current_epoch}, step {batch_idx}. Expected a finite value; lower "
                "method.optimizer.lr or method.epochs."
            )
        return loss

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:  # noqa: ARG002
        """Let the method correct what the optimiser did."""
        self.method.after_step(self.net, self._optimizer)

    def configure_optimizers(self) -> Optimizer:
        """Return the optimiser that all phases share."""
        return self._optimizer


def fit_loss_method(
    net: nn.Module,
    method: LossMethod,
    *,
    loaders: Callable[[Phase, int], Mapping[str, Iterable[Batch]]],
    trainer: Callable[[int], Trainer],
    transform: BatchTransform,
    seed: int,
) -> None:
    """Minimise the method's losses in place, phase by phase.

    Args:
        net: On the device where the trainer puts it.
        method: Its phases, parameters and hooks count.
        loaders: Makes the batches of a phase's sets, given the phase and its number. The longest
            set is the epoch, shorter ones cycle.
        trainer: Makes the Trainer for a number of epochs.
        transform: Augmentation.
        seed: Of the augmentation; each phase has a stream of its own.
    """
    optimizer = method.optimizer(method.parameters(net))
    training = net.training
    scaling: dict[str, Any] = {}
    for number, phase in enumerate(method.phases()):
        module = LitPhase(
            net,
            method,
            phase,
            optimizer=optimizer,
            transform=transform,
            seed=seed * 1_000_003 + number,
        )
        batches = CombinedLoader(dict(loaders(phase, number)), mode="max_size_cycle")
        fitting = trainer(phase.epochs)
        if scaling:  # of 16-mixed: a new one would skip steps until it fits these gradients again
            fitting.precision_plugin.load_state_dict(scaling)
        fitting.fit(module, batches)
        scaling = fitting.precision_plugin.state_dict()
    net.train(training)
