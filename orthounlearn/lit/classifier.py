"""The LightningModule that trains any network as a classifier."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from orthounlearn.data.augment import BatchTransform
from orthounlearn.errors import UsageError

Term = Callable[[nn.Module], Tensor]
"""A scalar that is added to the loss, computed from the network alone."""

_NAN_CHECK_EVERY = 50  # steps; reading the loss waits for the device


class LitClassifier(LightningModule):
    """Cross-entropy plus registered terms, on batches augmented on the device.

    Args:
        net: Any module from images (N, C, H, W) to logits (N, K).
        transform: Turns uint8 batches into normalised (and in training augmented) ones.
        num_classes: K.
        optimizer: Called with parameter groups, returns the optimiser.
        scheduler: Called with the optimiser, and with `total_steps` (or `T_max`) in steps if it
            asks for it; None keeps the learning rate.
        label_smoothing: In [0, 1).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        transform: BatchTransform,
        num_classes: int,
        optimizer: Callable[[Iterable[Any]], Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.transform = transform
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.image_size: int | None = None
        """Side length in pixels that this epoch trains at; None is the images' own."""
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._seed = seed
        self._terms: dict[str, Term] = {}
        self._generator: torch.Generator | None = None
        self._last_loss = torch.zeros(())

    def register_term(self, name: str, term: Term) -> None:
        """Add a term to the training loss, logged as `train/NAME`."""
        self._terms[name] = term

    def remove_term(self, name: str) -> None:
        """Remove a registered term."""
        self._terms.pop(name, None)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) for normalised images (N, C, H, W)."""
        logits: Tensor = self.net(images)
        return logits

    def on_train_epoch_start(self) -> None:
        """Start the epoch's random stream, so that a resumed run draws the same crops."""
        self._generator = torch.Generator(self.device).manual_seed(
            self._seed * 1_000_003 + self.current_epoch * 1009 + self.global_rank
        )

    def on_after_batch_transfer(
        self,
        batch: tuple[Tensor, Tensor],
        dataloader_idx: int,  # noqa: ARG002 - Lightning's hook
    ) -> tuple[Tensor, Tensor]:
        """Normalise, and augment in training, where the batch now is."""
        images, labels = batch
        if self.training:
            return self.transform.train(
                images, generator=self._generator, size=self.image_size
            ), labels
        return self.transform.evaluate(images), labels

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return cross-entropy plus the registered terms.

        The terms are part of the step's own loss, so gradient accumulation divides and the fp16
        scaler scales them like the rest.
        """
        images, labels = batch
        loss: Tensor = self.criterion(self(images), labels)
        self.log("train/cross_entropy", loss.detach(), on_step=False, on_epoch=True)
        for name, term in self._terms.items():
            value = term(self.net)
            self.log(f"train/{name}", value.detach(), on_step=False, on_epoch=True)
            loss = loss + value
        if batch_idx % _NAN_CHECK_EVERY == 0:
            self._require_finite(loss)
        self._last_loss = loss.detach()
        return loss

    def on_train_epoch_end(self) -> None:
        """Refuse to go on from, or to store, a network whose loss is not finite."""
        self._require_finite(self._last_loss)

    def _require_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise UsageError(
                f"Training diverged: the loss is {loss.item()} in epoch {self.current_epoch}. "
                "Expected a finite value; lower the learning rate or the weight of the "
                "regulariser, or look for damaged images."
            )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Log the loss and the accuracy on the validation split."""
        images, labels = batch
        logits = self(images)
        self.val_accuracy(logits, labels)
        self.log("val/loss", self.criterion(logits, labels), batch_size=len(labels), sync_dist=True)
        self.log("val/acc", self.val_accuracy, batch_size=len(labels))

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - Lightning's union of forms
        """Build the optimiser (no decay on biases and norms) and a scheduler for every step.

        Raises:
            UsageError: There are too few steps for the scheduler.
        """
        optimizer = self._optimizer(parameter_groups(self.net))
        if self._scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        try:
            scheduler = self._scheduler(optimizer, **_step_count(self._scheduler, steps))
        except ZeroDivisionError as error:  # OneCycleLR, where a phase has no step
            raise UsageError(
                f"Expected more steps than {steps} for this scheduler. Train for more epochs "
                "(recipe.epochs), on more batches, or with scheduler=none."
            ) from error
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def parameter_groups(net: nn.Module) -> list[dict[str, Any]]:
    """Split trainable parameters: matrices and kernels decay, vectors (biases, norms) do not.

    Decaying the scale of a BatchNorm shrinks features without a use for generalisation
    (He et al., "Bag of Tricks", arXiv 1812.01187, section 3.1).
    """
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1]},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _step_count(scheduler: Callable[..., LRScheduler], steps: int) -> dict[str, int]:
    accepted = inspect.signature(scheduler).parameters
    return {name: steps for name in ("total_steps", "T_max") if name in accepted}
