"""How long a network takes to answer: an edit that is baked into weights should cost nothing."""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.timing import now
from orthounlearn.methods.layers import evaluating

BATCHES = (1, 128)
_LEAST_S, _FEWEST = 0.2, 5  # seconds and number of rounds


def latency(experiment: Experiment, net: nn.Module, original: nn.Module | None) -> dict[str, float]:
    """Measure a forward pass of one image and of 128, as precise as the experiment computes.

    Both networks are measured in turn in this process, so that their ratio says more than the
    seconds, which are those of this machine at this moment.

    Args:
        experiment: Says device and precision.
        net: Unchanged, in its own mode.
        original: Of before the request, if it is known.

    Returns:
        `latency/batchN_s`, the median in seconds, and `latency/batchN_ratio`, that over the
        original's.
    """
    nets = [one for one in (net, original) if one is not None]
    found: dict[str, float] = {}
    for size in BATCHES:
        images = experiment.example()[:1].expand(size, -1, -1, -1)
        images = images.contiguous(memory_format=torch.channels_last)
        ours, *before = _medians(experiment, nets, images)
        found[f"latency/batch{size}_s"] = ours
        if before:
            found[f"latency/batch{size}_ratio"] = ours / before[0]
    return found


def _medians(experiment: Experiment, nets: Sequence[nn.Module], images: Tensor) -> list[float]:
    rounds: list[list[float]] = []
    with ExitStack() as stack:
        for net in nets:
            stack.enter_context(evaluating(net))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(experiment.autocast())
        for net in nets:
            _forward_s(net, images)  # to warm up
        while sum(map(sum, rounds)) < _LEAST_S or len(rounds) < _FEWEST:
            rounds.append([_forward_s(net, images) for net in nets])
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def _forward_s(net: nn.Module, images: Tensor) -> float:
    start = now(images.device)
    net(images)
    return now(images.device) - start
