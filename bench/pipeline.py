"""The project's own training, as its engine sets it up, in turns with another way to train."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lightning import Callback, LightningModule, Trainer

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained


@dataclass(frozen=True)
class Epoch:
    """Seconds of one epoch of the training, and of the same number of steps of the other way.

    Attributes:
        step_s: A step of the training, from batch to batch.
        end_s: What comes after the last step: logs and the checkpoint.
        other_step_s: A step of the other way.
    """

    step_s: float
    end_s: float
    other_step_s: float

    def seconds(self, batches: int) -> float:
        """Return what an epoch of so many batches takes."""
        return self.step_s * batches + self.end_s


class TakeTurns(Callback):
    """Between the steps of a fit, do as many steps of another way; take the time of both.

    Args:
        other: Does one step of the other way.
        every: Steps of the fit before it is the other way's turn.
        skip: First steps of each epoch that do not count; a new image size starts slowly.
    """

    def __init__(self, other: Callable[[], object], *, every: int = 1, skip: int = 0) -> None:
        self.other = other
        self.every = every
        self.skip = skip
        self.epochs: list[Epoch] = []
        self._own_s = self._other_s = 0.0
        self._steps = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Let an epoch begin; the one before ends here, with its logs and its checkpoint."""
        self._close()
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,  # noqa: ARG002
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002 - Lightning's hook
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,
    ) -> None:
        """Pass the turn on when it is due."""
        counted = batch_idx + 1 - self.skip
        if counted == 0:
            self._since = time.perf_counter()
        elif counted > 0 and counted % self.every == 0:
            start = time.perf_counter()
            self._own_s += start - self._since
            for _ in range(self.every):
                self.other()
            self._since = time.perf_counter()
            self._other_s += self._since - start
            self._steps = counted

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """End the last epoch."""
        self._close()

    def _close(self) -> None:
        if self._steps:
            end_s = time.perf_counter() - self._since
            self.epochs.append(Epoch(self._own_s / self._steps, end_s, self._other_s / self._steps))
        self._own_s = self._other_s = 0.0
        self._steps = 0


@dataclass(frozen=True)
class _Watched(Experiment):
    """An experiment whose fits have one callback more."""

    watcher: Callback

    def trainer(self, *, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:  # noqa: ANN401
        """Return the Trainer with the watcher."""
        return super().trainer(callbacks=[*callbacks, self.watcher], **options)


def train_in_turns(experiment: Experiment, turns: TakeTurns) -> list[Epoch]:
    """Train an original model, and return the times of each epoch."""
    ensure_trained(_Watched(experiment.config, experiment.data, turns), seed=0)
    return turns.epochs
