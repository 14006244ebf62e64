"""Training shadows: several networks in one batched step against one after the other."""

import copy
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from bench.results import Row
from bench.setting import Setting
from bench.timing import Spread, paired

_NETWORKS = 4


def measure(setting: Setting) -> list[Row]:
    """Time a forward and a backward pass of four thin ResNet-18, by vmap and in turn.

    Without the optimiser and the running statistics of BatchNorm, which cost both ways the same,
    and in float32, since the batched backward pass refuses bfloat16: above 1 the batched step would
    be worth having.
    """
    rounds, size, sides = setting.choose((3, 128, (16, 32)), (1, 4, (16,)))
    experiment = setting.experiment("model=resnet18_thin")
    networks = [_without_statistics(experiment.new_net(seed)) for seed in range(_NETWORKS)]
    template = copy.deepcopy(networks[0])
    parameters, buffers = stack_module_state(networks)

    def loss(own: dict[str, Tensor], kept: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(template, (own, kept), (x,)), y)

    batched = vmap(grad(loss))
    return [
        _compared(networks, partial(batched, parameters, buffers), side, size, rounds)
        for side in sides
    ]


def _compared(
    networks: list[nn.Module],
    batched: Callable[[Tensor, Tensor], object],
    side: int,
    size: int,
    rounds: int,
) -> Row:
    images = torch.randn(_NETWORKS, size, 3, side, side)
    labels = torch.randint(10, (_NETWORKS, size))

    def together() -> None:
        batched(images, labels)

    def in_turn() -> None:
        for net, own, target in zip(networks, images, labels, strict=True):
            net.zero_grad()
            found = F.cross_entropy(net(own), target)
            found.backward()  # type: ignore[no-untyped-call]

    with warnings.catch_warnings():
        # What vmap has no rule for it does one by one, and says so: that is its speed.
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        times = paired(in_turn, together, rounds=rounds)
    return Row(
        "ensemble",
        f"steps of {_NETWORKS} thin ResNet-18 in turn, {size} images of {side} pixels each",
        "one batched step of all (torch.func.vmap)",
        Spread.of(turns / batch for turns, batch in times),
        None,
        note="above 1: a batched step would train shadows faster; both in float32, since vmap's "
        "fallbacks do not mix precisions",
    )


def _without_statistics(net: nn.Module) -> nn.Module:
    """Return a training network without running statistics in BatchNorm, as vmap demands."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return net.to(memory_format=torch.contiguous_format).train()
