"""The usual ways, written out: torchvision's input pipeline and bare training loops."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import CIFAR10, VisionDataset

from orthounlearn.config.build import build
from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.data.loader import BatchLoader
from orthounlearn.engine.experiment import Experiment
from orthounlearn.lit.classifier import parameter_groups

Batches = Iterable[tuple[Tensor, Tensor]]


class InMemory(CIFAR10):  # type: ignore[misc]
    """torchvision's CIFAR-10 (array, Pillow image, transforms), on images that are here already.

    Only the reading of the files is replaced; how an item is made is torchvision's own code.
    """

    def __init__(self, part: ImageSet, transform: Callable[[Any], Tensor]) -> None:
        VisionDataset.__init__(self, root="", transform=transform)
        self.data = part.images_NHWC[:]
        self.targets = part.labels_N.tolist()


def torchvision_batches(
    data: ImageData, *, batch_size: int, padding: int, batches: int | None = None
) -> Batches:
    """Return shuffled, augmented and normalised float batches made by two worker processes.

    Args:
        data: Whose train part is read.
        batch_size: Images per batch.
        padding: Of the random crops, in pixels.
        batches: Per pass; None is all.
    """
    transform = transforms.Compose(
        [
            transforms.RandomCrop(data.image_size, padding=padding, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean, data.std),
        ]
    )
    dataset = InMemory(data.train, transform)
    return DataLoader(
        dataset,
        batch_size,
        sampler=RandomSampler(dataset, num_samples=batches and batches * batch_size),
        num_workers=2,
        persistent_workers=True,
        drop_last=True,
    )


def training_loader(experiment: Experiment) -> BatchLoader:
    """Return the loader that the engine trains an original model on."""
    return experiment.loader(
        experiment.splits(),
        "retain_train",
        batch_size=experiment.config["recipe"]["batch_size"],
        shuffle=True,
        drop_last=True,
    )


def same_steps_without_lightning(experiment: Experiment) -> Iterator[None]:
    """Train as the engine does, in a bare loop; each `next` is one step."""
    generator = torch.Generator().manual_seed(0)
    transform = experiment.transform
    loader = training_loader(experiment)
    batches = (
        (transform.train(images, generator=generator), labels)
        for images, labels in _forever(loader)
    )
    return _steps(experiment, experiment.new_net(0), batches, autocast=experiment.autocast)


def steps_of_the_usual_way(experiment: Experiment) -> Iterator[None]:
    """Train with torchvision's input, in float32 and contiguous layout; each `next` is one step."""
    batches = torchvision_batches(
        experiment.data,
        batch_size=experiment.config["recipe"]["batch_size"],
        padding=experiment.config["data"]["crop_padding"],
    )
    net = experiment.new_net(0).to(memory_format=torch.contiguous_format)
    return _steps(experiment, net, _forever(batches), autocast=nullcontext)


def _forever(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches


def _steps(
    experiment: Experiment, net: nn.Module, batches: Batches, *, autocast: Callable[[], Any]
) -> Iterator[None]:
    config = experiment.config
    criterion = nn.CrossEntropyLoss(label_smoothing=config["recipe"]["label_smoothing"])
    optimizer: Optimizer = build(config["optimizer"])(parameter_groups(net))
    total = config["recipe"]["epochs"] * len(training_loader(experiment))
    scheduler: LRScheduler = build(config["scheduler"])(optimizer, total_steps=total)
    net.train()
    for images, labels in batches:
        with autocast():
            loss = criterion(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        yield
