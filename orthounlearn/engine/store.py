"""The model store: every network is trained once, under a key of what determines it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock
from lightning import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch import nn

from orthounlearn.config.build import build
from orthounlearn.engine.checkpoints import load_network, save_network
from orthounlearn.engine.experiment import Experiment, environment, plain_metrics
from orthounlearn.files import make_folder, read_json, write_json, write_text
from orthounlearn.lit.callbacks import ImageSizes, Orthogonality, Status, UnlearnOnFitEnd
from orthounlearn.lit.classifier import LitClassifier
from orthounlearn.orthogonality.penalties import Penalty


@dataclass(frozen=True)
class StoredModel:
    """A trained network on disk.

    Attributes:
        folder: Of its files.
        key: Of what determines it.
    """

    folder: Path
    key: str

    @property
    def checkpoint(self) -> Path:
        """The weights."""
        return self.folder / "model.ckpt"

    @property
    def is_trained(self) -> bool:
        """Whether training came to its end; metrics.json is written last."""
        return (self.folder / "metrics.json").exists() and self.checkpoint.exists()

    @property
    def seconds(self) -> float:
        """Wall time of the training, without validation."""
        return float(read_json(self.folder / "metrics.json")["time/train_s"])

    def load(self, experiment: Experiment) -> nn.Module:
        """Return the network, on the device, in eval mode."""
        net = experiment.new_net(0)
        load_network(net, self.checkpoint)
        return net.to(experiment.device).eval()


def stored_model(experiment: Experiment, *, without: Sequence[int] = (), seed: int) -> StoredModel:
    """Return the place of a network in the store, trained or not.

    Args:
        experiment: What to train, and how.
        without: Classes left out of the training set: () is the original.
        seed: Of weights, order and crops.
    """
    key = experiment.training_key(without=without, seed=seed)
    config = experiment.config
    parts = [
        experiment.data.name,
        experiment.model_name,
        config["regularizer"]["name"],
        f"seed{seed}",
    ]
    if without:
        parts.append("without-" + "-".join(experiment.data.class_names[c] for c in without))
    name = "_".join(_slug(part) for part in parts)
    return StoredModel(experiment.runs / "models" / f"{name}_{key[:8]}", key)


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)


def ensure_trained(
    experiment: Experiment,
    *,
    without: Sequence[int] = (),
    seed: int,
    on_fit_end: Callable[[nn.Module], None] | None = None,
) -> StoredModel:
    """Return a network from the store, training it first if it is not there.

    Two processes that want the same network wait for one training. A training that was killed goes
    on at its last finished epoch.

    Args:
        experiment: What to train, and how.
        without: Classes left out of the training set.
        seed: Of weights, order and crops.
        on_fit_end: Called with the network at the end of the fit, if there is one.

    Raises:
        UsageError: The training diverged.
    """
    stored = stored_model(experiment, without=without, seed=seed)
    if stored.is_trained:
        return stored
    make_folder(stored.folder)
    with FileLock(stored.folder.with_suffix(".lock")):
        if not stored.is_trained:
            _train(experiment, stored, without=without, seed=seed, on_fit_end=on_fit_end)
    return stored


def _train(
    experiment: Experiment,
    stored: StoredModel,
    *,
    without: Sequence[int],
    seed: int,
    on_fit_end: Callable[[nn.Module], None] | None,
) -> None:
    config, folder = experiment.config, stored.folder
    splits = experiment.splits(without)
    splits.save(folder / "splits.npz")
    write_text(folder / "config.yaml", yaml.safe_dump({**config, "seed": seed}, sort_keys=False))
    write_json(folder / "env.json", environment(experiment))

    recipe = config["recipe"]
    module = LitClassifier(
        experiment.new_net(seed),
        transform=experiment.transform,
        num_classes=experiment.data.num_classes,
        optimizer=build(config["optimizer"]),
        scheduler=build(config["scheduler"]) if config["scheduler"] else None,
        label_smoothing=recipe["label_smoothing"],
        seed=seed,
    )
    timer = Timer(verbose=False)
    trainer = experiment.trainer(
        epochs=recipe["epochs"],
        callbacks=[timer, *_callbacks(experiment, folder, without, on_fit_end)],
        logger=experiment.loggers(folder),
        folder=folder,
    )
    train = experiment.loader(
        splits,
        "retain_train",
        batch_size=recipe["batch_size"],
        shuffle=True,
        seed=seed,
        drop_last=True,
    )
    val = experiment.loader(splits, "retain_val", batch_size=config["metrics"]["batch_size"])
    resume = folder / "resume.ckpt"
    if resume.exists():
        train.epoch = int(torch.load(resume, map_location="cpu", weights_only=True)["epoch"]) + 1
    seed_everything(seed, workers=True, verbose=False)
    trainer.fit(
        module, train, val, ckpt_path=str(resume) if resume.exists() else None, weights_only=True
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_global_zero:
        return
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    metrics["time/train_s"] = timer.time_elapsed("train") - timer.time_elapsed("validate")
    save_network(
        module.net,
        stored.checkpoint,
        about=describe(experiment, key=stored.key, seed=seed, without=without),
    )
    write_json(folder / "metrics.json", plain_metrics(metrics))
    resume.unlink(missing_ok=True)


def _callbacks(
    experiment: Experiment,
    folder: Path,
    without: Sequence[int],
    on_fit_end: Callable[[nn.Module], None] | None,
) -> list[Any]:
    config = experiment.config
    names = " ".join(experiment.data.class_names[c] for c in without)
    what = f"training {experiment.model_name} {config['regularizer']['name']}"
    callbacks: list[Any] = [
        ModelCheckpoint(
            folder, filename="resume", save_weights_only=False, enable_version_counter=False
        ),
        Status(folder / "status.json", what=what + (f" without {names}" if names else "")),
    ]
    if config["regularizer"]["penalty"]:
        callbacks.append(Orthogonality(build(config["regularizer"]["penalty"], Penalty)))
    if config["recipe"]["image_sizes"]:
        callbacks.append(ImageSizes(config["recipe"]["image_sizes"]))
    if on_fit_end is not None:
        callbacks.append(UnlearnOnFitEnd(on_fit_end))
    if config["logger"]:  # the monitors among them need one
        callbacks += [build(node) for node in config["callbacks"].values() if node]
    return callbacks


def describe(experiment: Experiment, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the notes that go into a checkpoint: what the network is and what it was shown."""
    data = experiment.data
    return {
        "model": experiment.config["model"],
        "regularizer": experiment.config["regularizer"]["name"],
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "class_names": list(data.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **{key: list(value) if isinstance(value, tuple) else value for key, value in more.items()},
    }
