"""Honest timing: preparation apart from the request, no evaluation inside, device synchronised."""

import copy
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from orthounlearn.engine.context import RequestContext
from orthounlearn.errors import DivergedError
from orthounlearn.methods.base import UnlearningMethod

_REPEATS = 5  # of a short training-free request, on copies; the first is the warm-up
_SHORT = 1.0  # seconds; a longer request needs neither a warm-up nor a median


@dataclass(frozen=True)
class Timed:
    """An unlearned network and what it cost.

    Attributes:
        net: Unlearned.
        prepare_s: Before the request; includes what an earlier request left on disk.
        unlearn_s: The request; of training-free methods the median of several runs if it is
            short.
    """

    net: nn.Module
    prepare_s: float
    unlearn_s: float


def carry_out(
    method: UnlearningMethod,
    net: nn.Module,
    context: RequestContext,
    *,
    left: Mapping[str, Tensor] | None = None,
) -> Timed:
    """Prepare a method and run its request on a network, in place.

    Args:
        method: Fresh.
        net: The original model; gone afterwards.
        context: Of the request.
        left: The state that earlier requests have left, if the method was prepared before them.

    Raises:
        DivergedError: The method diverged.
    """
    with context.preparing():
        start = now(context.example.device)
        method.prepare(net, context)
        prepare_s = now(context.example.device) - start + context.stored_seconds
    if left is not None:
        net.load_state_dict(left)
    seconds = []
    if method.training_free:
        for _ in range(_REPEATS):
            # Together, so that what `prepare` noted of the network is that of the copy.
            trial, copied = copy.deepcopy((method, net))
            seconds.append(_run(trial, copied, context)[1])
            if seconds[0] > _SHORT:
                break
    unlearned, took = _run(method, net, context)
    if method.unlearn_seconds is not None:
        took = method.unlearn_seconds
    elif seconds:
        took = statistics.median([*seconds[1:], took])
    return Timed(_finite(unlearned, method), prepare_s, took)


def run_once(method: UnlearningMethod, net: nn.Module, context: RequestContext) -> nn.Module:
    """Prepare a method and run its request without taking the time.

    Raises:
        DivergedError: The method diverged.
    """
    with context.preparing():
        method.prepare(net, context)
    return _finite(method.unlearn(net, context), method)


def _finite(net: nn.Module, method: UnlearningMethod) -> nn.Module:
    """Refuse a network that the last step has destroyed; its loss was still finite before."""
    broken = [name for name, tensor in net.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise DivergedError(
            f"{type(method).__name__} diverged: {len(broken)} of its tensors are not finite, such "
            f"as {broken[0]}. Lower its learning rate or its strength."
        )
    return net


def _run(
    method: UnlearningMethod, net: nn.Module, context: RequestContext
) -> tuple[nn.Module, float]:
    start = now(context.example.device)
    unlearned = method.unlearn(net, context)
    return unlearned, now(context.example.device) - start


def now(device: torch.device) -> float:
    """Return the time in seconds at which a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
