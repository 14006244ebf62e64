"""Where a training stands, in a small file that the view of a sweep reads."""

import time
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from orthounlearn.files import write_json


class Status(Callback):
    """Write `status.json` at the start of every epoch and at the end.

    Args:
        path: The file.
        what: One line for people, such as "training resnet18".
    """

    def __init__(self, path: Path, *, what: str) -> None:
        self.path = path
        self.what = what

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Tell the epoch that begins."""
        self._write(trainer, "running")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Tell that training is done."""
        self._write(trainer, "done")

    def _write(self, trainer: Trainer, state: str) -> None:
        if trainer.is_global_zero:
            write_status(
                self.path, state, self.what, epoch=trainer.current_epoch, epochs=trainer.max_epochs
            )


def write_status(
    path: Path, state: str, what: str, *, epoch: int | None = None, epochs: int | None = None
) -> None:
    """Write one status: state is "running", "done" or "failed"."""
    write_json(
        path,
        {"state": state, "what": what, "epoch": epoch, "epochs": epochs, "updated": time.time()},
    )
