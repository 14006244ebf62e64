"""One configured experiment: its data, splits, networks, trainers and loggers."""

import functools
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from torch import nn

from orthounlearn.config.build import (
    accepted,
    build,
    config_dirs,
    locate,
    validate_targets,
)
from orthounlearn.config.checks import validate_values
from orthounlearn.data.augment import BatchTransform
from orthounlearn.data.images import ImageData
from orthounlearn.data.loader import BatchLoader
from orthounlearn.data.splits import Splits, make_splits
from orthounlearn.engine.own_code import sources
from orthounlearn.errors import UsageError
from orthounlearn.files import digest
from orthounlearn.metrics.shadow import balanced_membership

_TRAINER_COMFORT = frozenset(
    {
        # Where the arithmetic runs: another device rounds otherwise, as another processor does.
        "accelerator",
        # What is shown and written.
        "enable_progress_bar",
        "enable_model_summary",
        "log_every_n_steps",
        "profiler",
        # Set by each fit, whatever the node says (see `Experiment.trainer`).
        "max_epochs",
        "callbacks",
        "logger",
        "enable_checkpointing",
        "default_root_dir",
    }
)
"""Options of the trainer that cannot change the weights; all others are part of the key."""

MONITORS = (LearningRateMonitor, DeviceStatsMonitor)
"""Callbacks that only log: they need a logger, and change no weights."""

_PACKAGES = (
    "orthounlearn",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "scikit-learn",
    "numpy",
)


@dataclass(frozen=True)
class Experiment:
    """A configuration whose data is open.

    Attributes:
        config: Resolved, plain.
        data: Images.
    """

    config: dict[str, Any]
    data: ImageData

    @property
    def device(self) -> torch.device:
        """Where inference runs: the first device of the configured accelerator."""
        wanted = self.config["trainer"].get("accelerator", "auto")
        if wanted in ("auto", "gpu", "cuda") and torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        if wanted == "mps":
            return torch.device("mps")
        return torch.device("cpu")

    @property
    def on_several_devices(self) -> bool:
        """Whether training is spread over processes."""
        return bool(self.config["trainer"].get("strategy", "auto") != "auto")

    @property
    def runs(self) -> Path:
        """Folder of all results."""
        return Path(self.config["paths"]["runs"]).absolute()

    @property
    def model_name(self) -> str:
        """Of the network, for people and file names."""
        node = self.config["model"]
        return str(node.get("name") or str(node["_target_"]).rpartition(".")[2])

    @property
    def transform(self) -> BatchTransform:
        """Normalisation and augmentation."""
        return BatchTransform(
            mean=self.data.mean,
            std=self.data.std,
            crop_padding=self.config["data"]["crop_padding"],
            flip=self.config["data"]["flip"],
        )

    def splits(self, forget: Sequence[int] = (), *, shadow: int | None = None) -> Splits:
        """Return the splits of a request, or of what a shadow is trained on.

        Args:
            forget: Classes to forget.
            shadow: Keep of both train sets the images that this shadow is trained on.
        """
        splits = make_splits(
            self.data.train.labels_N,
            self.data.test.labels_N,
            forget=forget,
            val_fraction=self.config["data"]["val_fraction"],
            seed=self.config["data"]["split_seed"],
        )
        return splits if shadow is None else splits.trained_on(self.shadow_members(shadow + 1)[-1])

    def shadow_members(self, count: int) -> NDArray[np.bool_]:
        """Return which images of the train part each shadow is trained on, (count, N).

        All classes are halved at once, so that one pool of shadows serves every request.
        """
        return balanced_membership(
            len(self.data.train.labels_N), count + count % 2, self.config["data"]["split_seed"]
        )[:count]

    def loader(self, splits: Splits, *names: str, **options: Any) -> BatchLoader:  # noqa: ANN401
        """Return the uint8 batches of one split, or of several of one official part together."""
        part = self.data.train if names[0].endswith(("_train", "_val")) else self.data.test
        what = f"images of {' and '.join(names)}"
        indices = np.concatenate([splits[name] for name in names])
        return BatchLoader(part, indices, what=what, **options)

    def example(self) -> torch.Tensor:
        """Return two images of zeros (2, C, H, W) on the device."""
        size = self.data.image_size
        return torch.zeros(2, self.data.in_channels, size, size, device=self.device)

    def new_net(self, seed: int) -> nn.Module:
        """Return a freshly initialised network."""
        seed_everything(seed, workers=True, verbose=False)
        known = {
            "num_classes": self.data.num_classes,
            "in_channels": self.data.in_channels,
            "image_size": self.data.image_size,
        }
        node = self.config["model"]
        net = build(node, nn.Module, **accepted(node, known))
        return net.to(memory_format=torch.channels_last)

    def trainer(
        self,
        *,
        epochs: int,
        callbacks: Sequence[Callback] = (),
        logger: Sequence[Logger] = (),
        folder: Path,
        **options: Any,  # noqa: ANN401 - Lightning's
    ) -> Trainer:
        """Return a Trainer with the configured device, precision and strategy.

        Args:
            epochs: Passes over the training set.
            callbacks: Of this fit.
            logger: Loggers of this fit.
            folder: Where Lightning may write.
            **options: Win over the configured ones.
        """
        return build(
            self.config["trainer"],
            Trainer,
            max_epochs=epochs,
            callbacks=list(callbacks),
            logger=list(logger) or False,
            enable_checkpointing=any("Checkpoint" in type(c).__name__ for c in callbacks),
            default_root_dir=str(folder),
            **options,
        )

    def autocast(self) -> AbstractContextManager[None]:
        """Return the mixed-precision context of inference."""
        if self.config["trainer"]["precision"] == "bf16-mixed":
            return torch.autocast(self.device.type, torch.bfloat16)
        if self.config["trainer"]["precision"] == "16-mixed":
            return torch.autocast(self.device.type, torch.float16)
        return nullcontext()

    def about(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the notes that go into a checkpoint: what the network is, what it was shown."""
        return {
            "model": self.config["model"],
            "regularizer": self.config["regularizer"]["name"],
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint,
            "class_names": list(self.data.class_names),
            "mean": list(self.data.mean),
            "std": list(self.data.std),
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **{k: list(v) if isinstance(v, tuple) else v for k, v in more.items()},
        }

    @property
    def trained_on(self) -> dict[str, Any]:
        """What determines which images there are to train with."""
        cut = [self.config["data"][k] for k in ("val_fraction", "split_seed")]
        return {"data": self.data.fingerprint, "cut": cut}

    @property
    def handling(self) -> dict[str, Any]:
        """How a network is built, run and fitted, whatever its weights."""
        config = self.config
        return {
            "model": config["model"],
            "trainer": {
                option: value
                for option, value in config["trainer"].items()
                if option not in _TRAINER_COMFORT and value is not None  # null: not given
            },
            "augmentation": [config["data"][k] for k in ("crop_padding", "flip")],
        }

    def training_key(self, *, without: Sequence[int], seed: int, shadow: int | None = None) -> str:
        """Return the key of what determines a trained network."""
        config = self.config
        training = {k: config[k] for k in ("regularizer", "optimizer", "scheduler")}
        callbacks = [node for node in config["callbacks"].values() if node and _acts(node)]
        own = sources([config["model"], config["trainer"], training, callbacks])
        return digest(
            {
                "recipe": RECIPE_VERSION,
                **self.trained_on,
                **self.handling,
                "without": list(without),
                "seed": seed,
                **training,
                "training": config["recipe"],
                **({} if shadow is None else {"shadow": shadow}),
                **({"callbacks": callbacks} if callbacks else {}),
                **({"sources": own} if own else {}),
            }
        )


def _acts(callback: Mapping[str, Any]) -> bool:
    return locate(str(callback["_target_"])) not in MONITORS


RECIPE_VERSION = 1
"""Raise it when the training code changes what is learned: stored networks are then retrained."""


def open_experiment(config: dict[str, Any]) -> Experiment:
    """Validate a resolved configuration and open its data.

    Raises:
        UsageError: A value is out of range, a module or a node is not sound, or the data cannot
            be read.
    """
    validate_values(config)
    validate_targets(config)
    data = _open_data(json.dumps(config["data"]["source"], sort_keys=True))
    padding = config["data"]["crop_padding"]
    if padding >= data.image_size:
        raise UsageError(
            f"Expected data.crop_padding to be less than the {data.image_size} pixels of an image, "
            f"whose border is reflected, but got {padding}."
        )
    return Experiment(config, data)


@functools.lru_cache(maxsize=2)  # the jobs of a sweep that share a process share the data
def _open_data(source: str) -> ImageData:
    return build(json.loads(source), ImageData)


def environment(experiment: Experiment) -> dict[str, Any]:
    """Return what a result depends on besides its configuration."""
    return {
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(experiment.device),
        "device_name": torch.cuda.get_device_name()
        if experiment.device.type == "cuda"
        else platform.processor(),
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
        "command": _command(),
    }


def _command() -> str:
    """Return what does this job again, by itself: of a multirun's job not the whole multirun."""
    if not HydraConfig.initialized():  # called from Python
        return shlex.join(sys.argv)
    hydra = HydraConfig.get()
    words = [str(hydra.job.config_name), *config_dirs(), *map(str, hydra.overrides.task)]
    return shlex.join(["orthounlearn", *words])


@functools.cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


@functools.cache
def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def plain_metrics(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics for JSON: nan becomes null."""
    return {key: None if value != value else float(value) for key, value in values.items()}
