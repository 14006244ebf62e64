"""The training loop of a loss method, in a Trainer of its own: an outer one is not rebound."""

from collections.abc import Iterable, Mapping

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from orthounlearn.data.augment import BatchTransform
from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, LossMethod


class LitLossMethod(LightningModule):
    """One step = one batch of each set that the method uses, augmented as in training."""

    def __init__(
        self, net: nn.Module, method: LossMethod, *, transform: BatchTransform, seed: int
    ) -> None:
        super().__init__()
        self.net = net
        self.method = method
        self.transform = transform
        self._seed = seed
        self._generator: torch.Generator | None = None

    def on_train_start(self) -> None:
        """Start the random stream of the augmentation."""
        self._generator = torch.Generator(self.device).manual_seed(self._seed + self.global_rank)

    def on_train_epoch_start(self) -> None:
        """Freeze the BatchNorm statistics if the method asks for it."""
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
            split: (self.transform.train(images, generator=self._generator), labels)
            for split, (images, labels) in batch.items()
        }

    def training_step(self, batch: Mapping[str, Batch], batch_idx: int) -> Tensor:
        """Return the method's loss."""
        loss = self.method.loss(self.net, batch)
        if not torch.isfinite(loss):
            raise UsageError(
                f"{type(self.method).__name__} diverged: the loss is {loss.item()} in epoch "
                f"{self.current_epoch}, step {batch_idx}. Expected a finite value; lower "
                "method.optimizer.lr or method.epochs."
            )
        return loss

    def configure_optimizers(self) -> Optimizer:
        """Build the method's optimiser over all trainable parameters."""
        return self.method.optimizer([p for p in self.net.parameters() if p.requires_grad])


def fit_loss_method(
    net: nn.Module,
    method: LossMethod,
    *,
    loaders: Mapping[str, Iterable[Batch]],
    trainer: Trainer,
    transform: BatchTransform,
    seed: int,
) -> None:
    """Minimise the method's loss in place; the longest set is the epoch, shorter ones cycle."""
    module = LitLossMethod(net, method, transform=transform, seed=seed)
    trainer.fit(module, CombinedLoader(dict(loaders), mode="max_size_cycle"))
