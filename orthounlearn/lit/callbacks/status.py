"""Where a job stands, in a small file that the view of a sweep reads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from orthounlearn.files import write_json

_JOB: ContextVar[tuple[Path, str] | None] = ContextVar("job", default=None)
"""The job that surrounds a training: a request trains retrained networks, or by its method."""


@contextmanager
def reporting(path: Path, what: str) -> Iterator[None]:
    """Report a job to a file: that it runs, the epochs of trainings within, how it ends.

    Args:
        path: The file.
        what: One line for people, such as "soft_prune, cat".
    """
    token = _JOB.set((path, what))
    try:
        write_status(path, "running", what)
        yield
    except BaseException:
        write_status(path, "failed", what)
        raise
    else:
        write_status(path, "done", what)
    finally:
        _JOB.reset(token)


def report_stage(stage: str) -> None:
    """Tell what the surrounding job does now; without one nothing is written."""
    job = _JOB.get()
    if job is not None:
        write_status(job[0], "running", f"{job[1]}, {stage}")


class Status(Callback):
    """Write the epoch at the start of every epoch: to a file, and to that of the surrounding job.

    Args:
        path: The file; None if there is only the job's.
        what: One line for people, such as "training resnet18".
    """

    def __init__(self, path: Path | None = None, *, what: str = "") -> None:
        self.path = path
        self.what = what

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Tell the epoch that begins."""
        job = _JOB.get()
        if job is not None:
            self._write(trainer, job[0], "running", job[1])
        if self.path is not None:
            self._write(trainer, self.path, "running", self.what)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Tell that training is done."""
        if self.path is not None:
            self._write(trainer, self.path, "done", self.what)

    def _write(self, trainer: Trainer, path: Path, state: str, what: str) -> None:
        if trainer.is_global_zero:
            write_status(path, state, what, epoch=trainer.current_epoch, epochs=trainer.max_epochs)


def write_status(
    path: Path, state: str, what: str, *, epoch: int | None = None, epochs: int | None = None
) -> None:
    """Write one status: state is "running", "done" or "failed"."""
    write_json(
        path,
        {"state": state, "what": what, "epoch": epoch, "epochs": epochs, "updated": time.time()},
    )
