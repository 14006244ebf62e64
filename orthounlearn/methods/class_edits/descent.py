"""Steps down a loss, in any precision."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from orthounlearn.methods.base import Context

# Not the usual 2^16: these losses are means over a few hundred images, and a first step that
# overflows would be left out.
_FIRST_SCALE = 2.0**10


class Descent:
    """An optimiser and its schedule, which take a step on each loss.

    Under float16 autocast losses are scaled, since gradients below 6e-8 would be 0 there, and a
    step that overflows is left out, with its step of the schedule. In any other precision nothing
    is scaled.

    Args:
        context: For its precision.
        parameters: What is learned.
        optimizer: Of these.
        schedule: Of the optimiser.
        longest: The largest norm of a gradient; None leaves gradients as they are.
    """

    def __init__(
        self,
        context: Context,
        parameters: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        schedule: LRScheduler,
        *,
        longest: float | None = None,
    ) -> None:
        device = context.example.device.type
        with context.autocast():
            half = torch.get_autocast_dtype(device) == torch.float16
            scales = half and torch.is_autocast_enabled(device)
        self._parameters, self._longest = parameters, longest
        self._optimizer, self._schedule = optimizer, schedule
        self._scaler = torch.amp.GradScaler(device, init_scale=_FIRST_SCALE, enabled=scales)

    def step(self, loss: Tensor) -> None:
        """Take a step down a scalar loss."""
        self._optimizer.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss))
        if self._longest is not None:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self._longest)
        self._scaler.step(self._optimizer)
        before = self._scaler.get_scale()
        self._scaler.update()
        if self._scaler.get_scale() >= before:  # lowered: the step was left out
            self._schedule.step()
