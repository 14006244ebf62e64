"""Training at lower resolution first: the early epochs need no fine detail and cost less."""

from collections.abc import Sequence

from lightning import Callback, LightningModule, Trainer

from orthounlearn.errors import UsageError


class ImageSizes(Callback):
    """Set the side length of the training images for each epoch.

    Args:
        sizes: Pixels, one entry per epoch.

    Raises:
        UsageError: At the start of a fit whose number of epochs is another.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Check the length of the list."""
        if trainer.max_epochs != len(self.sizes):
            raise UsageError(
                f"Expected recipe.image_sizes to have one entry per epoch ({trainer.max_epochs}), "
                f"but got {len(self.sizes)}. Change it or recipe.epochs, or set it to null."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose this epoch's size."""
        pl_module.image_size = self.sizes[trainer.current_epoch]  # type: ignore[assignment]
