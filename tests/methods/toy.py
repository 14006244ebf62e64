"""What the tests of methods share: 40 images of 4 classes, a context, small networks."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.masking.statistics import ClassStatistics, class_statistics
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.base import Batch, LossMethod, UnlearningMethod

CLASSES = 4
MEAN, STD = (0.5, 0.3, 0.7), (0.2, 0.5, 0.25)
MEAN_C11, STD_C11 = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
PIXELS = torch.randint(256, (40, 3, 8, 8), generator=torch.Generator().manual_seed(3)) / 255
IMAGES = (PIXELS - MEAN_C11) / STD_C11
LABELS = torch.arange(40) % CLASSES

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
OPTIONS = {"optimizer": SGD, "epochs": 2, "batch_size": 8, "batch_norm": "train"}
"""Of any loss method."""
FROZEN = OPTIONS | {"batch_norm": "frozen"}
ONE_STEP = {"epochs": 1, "batch_size": 40}
"""On all images of a set at once."""


class Toy:
    """A `Context` of a few images, in their order; what validates is what trains.

    Args:
        forget: The classes of the request.
        images: (N, C, H, W)
        labels: (N,)
        seed: Of the request.
    """

    num_classes = CLASSES
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __init__(
        self, *forget: int, images: Tensor = IMAGES, labels: Tensor = LABELS, seed: int = 0
    ) -> None:
        self.forget, self.images, self.labels, self.seed = forget, images, labels, seed
        self.example = images[:2]

    def of(self, *splits: str) -> Batch:
        """Return the images and labels of the sets."""
        of_forget = torch.isin(self.labels, torch.tensor(self.forget))
        chosen = torch.zeros_like(of_forget)
        for split in splits:
            chosen |= of_forget == split.startswith("forget")
        return self.images[chosen], self.labels[chosen]

    def batches(self, split: str, *, batch_size: int, **_: object) -> Iterable[Batch]:
        return in_batches(self.of(split), batch_size)

    def statistics(
        self, net: nn.Module, *, sites: tuple[Site, ...], pooling: Literal["max", "mean"]
    ) -> ClassStatistics:
        batches = [(self.images, self.labels)]
        return class_statistics(net, batches, sites=sites, num_classes=CLASSES, pooling=pooling)

    def kept(
        self, _: nn.Module, __: str, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        return make()

    def autocast(self) -> nullcontext[None]:
        return nullcontext()

    def fit(self, net: nn.Module, method: LossMethod) -> None:
        """Train in the plainest loop that keeps the promises of `Phase`."""
        net.train()
        for module in net.modules():
            if method.batch_norm == "frozen" and isinstance(module, nn.BatchNorm2d):
                module.eval()
        optimizer = method.optimizer(method.parameters(net))
        for phase in method.phases():
            sets = {
                name: list(in_batches(self.of(*splits), method.batch_size))
                for name, splits in phase.sets.items()
            }
            if phase.begin is not None:
                phase.begin(net, optimizer)
            for step in range(phase.epochs * max(map(len, sets.values()))):
                batch = {name: batches[step % len(batches)] for name, batches in sets.items()}
                optimizer.zero_grad()
                phase.loss(net, batch).backward()
                optimizer.step()
                method.after_step(net, optimizer)

    def retrained(self, *, seed: int) -> tuple[nn.Module, float]:
        raise NotImplementedError("Training from scratch is the engine's.")


def in_batches(whole: Batch, size: int) -> Iterable[Batch]:
    """Split a whole set into batches."""
    return zip(*(tensor.split(size) for tensor in whole), strict=True)


def kept(forget: tuple[int, ...]) -> list[int]:
    """Return the classes that are not forgotten."""
    return [label for label in range(CLASSES) if label not in forget]


# ---- networks: the same weights in every call, eval mode ----------------------------------------


def convolutional() -> nn.Sequential:
    """Every kind of parameter: a kernel, BatchNorm's, a linear layer's; an in-place activation."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES),
    )  # fmt: skip
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net.eval()


def without_bias() -> nn.Sequential:
    torch.manual_seed(0)
    head = nn.Linear(5, CLASSES, bias=False)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(192, 5), nn.ReLU(), nn.Linear(5, CLASSES)
    return nn.Sequential(nn.Flatten(), *layers).eval()


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)).eval()


class Foreign(nn.Module):
    """A user's network: named and built unlike ours, in another order than it runs.

    Args:
        num_classes: Logits.
        in_channels: Of the images.
        width: Channels of the first layer.
    """

    def __init__(self, *, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.verdict = nn.Linear(2 * width, num_classes)
        self.edges = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.calm = nn.BatchNorm2d(width)
        self.shapes = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.things = nn.Conv2d(width, 2 * width, 3)
        self.calmer = nn.BatchNorm2d(2 * width)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.shapes(F.relu(self.calm(self.edges(images))))
        seen = F.relu(self.calmer(self.things(F.max_pool2d(seen, 2))))
        return self.verdict(seen.mean((2, 3)))


# ---- carrying out a request ---------------------------------------------------------------------


@contextmanager
def left_as_found(net: nn.Module) -> Iterator[None]:
    """Check that every module gets its mode back and that no hook stays."""
    modes = [module.training for module in net.modules()]
    yield
    assert [module.training for module in net.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def run(method: UnlearningMethod, net: nn.Module, context: Toy) -> nn.Module:
    """Return the network that a method which edits `net` makes of it."""
    with left_as_found(net):
        method.prepare(net, context)
        return method.unlearn(net, context)


def stepped(net: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Return the parameters after the first step of `SGD` on a loss, by hand."""
    names, values = zip(*net.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, values)
    return {
        name: value.detach() - 0.1 * (gradient + 0.01 * value.detach())
        for name, value, gradient in zip(names, values, gradients, strict=True)
    }


def trained(method: LossMethod, net: nn.Module, *forget: int) -> nn.Module:
    """Return the network that a loss method makes of a copy, with the same random numbers."""
    torch.manual_seed(7)
    return method.unlearn(copy.deepcopy(net), Toy(*forget))
