"""How long a network takes to answer: an edit that is baked into weights should cost nothing."""

import statistics

import torch
from torch import Tensor, nn

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.timing import now
from orthounlearn.methods.layers import evaluating

BATCHES = (1, 128)
_LEAST_S, _FEWEST = 0.2, 5  # seconds and number of repetitions, after one to warm up


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
    found: dict[str, float] = {}
    for size in BATCHES:
        images = experiment.example()[:1].expand(size, -1, -1, -1)
        images = images.contiguous(memory_format=torch.channels_last)
        seconds = [_median(experiment, one, images) for one in (net, original) if one is not None]
        found[f"latency/batch{size}_s"] = seconds[0]
        if original is not None:
            found[f"latency/batch{size}_ratio"] = seconds[0] / seconds[1]
    return found


def _median(experiment: Experiment, net: nn.Module, images: Tensor) -> float:
    seconds: list[float] = []
    with evaluating(net), torch.inference_mode(), experiment.autocast():
        net(images)
        while sum(seconds) < _LEAST_S or len(seconds) < _FEWEST:
            start = now(images.device)
            net(images)
            seconds.append(now(images.device) - start)
    return statistics.median(seconds)
