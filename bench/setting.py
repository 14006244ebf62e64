"""What all benchmarks share: images, folders, how long to measure, and composed configurations."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from orthounlearn.config.standalone import configuration
from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.data.sources import official
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError

T = TypeVar("T")

RANDOM = "random"
"""Name of the images that stand in for CIFAR-10."""


@dataclass(frozen=True)
class Setting:
    """Surroundings of one run.

    Attributes:
        data: CIFAR-10, or random images of its shape.
        quick: Only show that everything runs: a few small steps.
        folder: For files of trainings; goes away after the run.
    """

    data: ImageData
    quick: bool
    folder: Path

    def choose(self, full: T, quick: T) -> T:
        """Return the first value for a measurement, the second for a quick run."""
        return quick if self.quick else full

    def experiment(self, *overrides: str) -> Experiment:
        """Return the experiment of a command line, on the CPU and on these images."""
        small = ["model.width=8", "recipe.batch_size=8", "metrics.batch_size=8"]
        always = ["trainer=cpu", f"paths.runs={self.folder}", *(small if self.quick else [])]
        return Experiment(compose(*overrides, *always), self.data)


def compose(*overrides: str) -> dict[str, Any]:
    """Return the configuration of `orthounlearn unlearn data=cifar10 recipe=cifar_cpu ...`."""
    return configuration("unlearn", "data=cifar10", "recipe=cifar_cpu", *overrides)


def open_images(*, quick: bool) -> ImageData:
    """Return CIFAR-10 through the project's own source, or random images of the same shape."""
    cache = str(compose()["paths"]["cache"])
    try:
        return official(name="cifar10", cache_dir=cache, search=os.environ.get("ORTHOUNLEARN_DATA"))
    except UsageError:
        return random_images(500 if quick else 50_000)


def random_images(count: int) -> ImageData:
    """Return uint8 noise of CIFAR-10's shape; a fifth as many test images."""
    rng = np.random.default_rng(0)
    train, test = (
        ImageSet(
            rng.integers(256, size=(size, 32, 32, 3), dtype=np.uint8),
            np.arange(size, dtype=np.int64) % 10,
        )
        for size in (count, count // 5)
    )
    return ImageData(
        name=RANDOM,
        train=train,
        test=test,
        class_names=tuple(f"class {label}" for label in range(10)),
        mean=(0.5, 0.5, 0.5),
        std=(0.29, 0.29, 0.29),
        fingerprint=RANDOM,
    )
