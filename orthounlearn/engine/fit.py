"""Training one network, resumably; on several devices in processes of its own.

`python -m orthounlearn.engine.fit FILE` is what those processes run.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch import nn

from orthounlearn.config.build import build
from orthounlearn.engine.checkpoints import save_network
from orthounlearn.engine.experiment import (
    MONITORS,
    Experiment,
    environment,
    open_experiment,
    plain_metrics,
)
from orthounlearn.engine.loggers import opened
from orthounlearn.errors import UsageError
from orthounlearn.files import read_json, write_json, write_text
from orthounlearn.lit.callbacks import ImageSizes, Orthogonality, Status, UnlearnOnFitEnd
from orthounlearn.lit.classifier import LitClassifier
from orthounlearn.lit.process import prepare_process
from orthounlearn.orthogonality.penalties import Penalty


@dataclass(frozen=True)
class Fit:
    """What to train, and where to put it.

    Attributes:
        folder: Of the files.
        key: Of what determines the network.
        without: Classes left out of the training set: () is the original.
        seed: Of weights, order and crops.
        shadow: Number of a shadow, which is trained on its half of the images; None: on all.
    """

    folder: Path
    key: str
    without: tuple[int, ...]
    seed: int
    shadow: int | None = None


def fit(
    experiment: Experiment, task: Fit, *, on_fit_end: Callable[[nn.Module], None] | None = None
) -> None:
    """Train a network and write its files; metrics.json comes last and says that it is whole.

    A training that was killed goes on at its last finished epoch.

    Args:
        experiment: Data and recipe.
        task: Which network.
        on_fit_end: Called with the network at the end of the fit.

    Raises:
        UsageError: The training diverged.
    """
    config, folder = experiment.config, task.folder
    splits = experiment.splits(task.without, shadow=task.shadow)
    splits.save(folder / "splits.npz")
    write_text(
        folder / "config.yaml", yaml.safe_dump({**config, "seed": task.seed}, sort_keys=False)
    )
    write_json(folder / "env.json", environment(experiment))

    recipe = config["recipe"]
    module = LitClassifier(
        experiment.new_net(task.seed),
        transform=experiment.transform,
        num_classes=experiment.data.num_classes,
        optimizer=build(config["optimizer"]),
        scheduler=build(config["scheduler"]) if config["scheduler"] else None,
        label_smoothing=recipe["label_smoothing"],
        seed=task.seed,
    )
    train = experiment.loader(
        splits,
        "retain_train",
        batch_size=recipe["batch_size"],
        shuffle=True,
        seed=task.seed,
        drop_last=True,
    )
    val = experiment.loader(splits, "retain_val", batch_size=config["metrics"]["batch_size"])
    resume = folder / "resume.ckpt"
    if resume.exists():
        train.epoch = int(torch.load(resume, map_location="cpu", weights_only=True)["epoch"]) + 1
    timer = Timer(verbose=False)
    with opened(experiment, folder, job_type="train") as loggers:
        trainer = experiment.trainer(
            epochs=recipe["epochs"],
            callbacks=[
                timer,
                *_callbacks(experiment, task, on_fit_end),
                *_own_callbacks(config["callbacks"], logged=bool(loggers)),
            ],
            logger=loggers,
            folder=folder,
        )
        seed_everything(task.seed, workers=True, verbose=False)
        trainer.fit(
            module,
            train,
            val,
            ckpt_path=str(resume) if resume.exists() else None,
            weights_only=True,
        )
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not trainer.is_global_zero:
        return
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    metrics["time/train_s"] = timer.time_elapsed("train") - timer.time_elapsed("validate")
    about = experiment.about(key=task.key, seed=task.seed, without=task.without, shadow=task.shadow)
    save_network(module.net, folder / "model.ckpt", about=about)
    write_json(folder / "metrics.json", plain_metrics(metrics))
    resume.unlink(missing_ok=True)


def _callbacks(
    experiment: Experiment, task: Fit, on_fit_end: Callable[[nn.Module], None] | None
) -> list[Any]:
    config, folder = experiment.config, task.folder
    names = " ".join(experiment.data.class_names[c] for c in task.without)
    what = f"training {experiment.model_name} {config['regularizer']['name']}"
    if task.shadow is not None:
        what += f" shadow {task.shadow}"
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
    return callbacks


def _own_callbacks(nodes: Mapping[str, Any], *, logged: bool) -> list[Callback]:
    """Return the configured callbacks; monitors only where there is a logger, which they need."""
    built = [build(node, Callback) for node in nodes.values() if node]
    return [callback for callback in built if logged or not isinstance(callback, MONITORS)]


def fit_on_several_devices(experiment: Experiment, task: Fit) -> None:
    """Train a network as `fit` does, with one process per device.

    In processes of its own, since Lightning starts the other ranks by running the same command
    again, and since a process group, once made, stays: this process would go on as rank 0 of a
    group whose other members are gone.

    Raises:
        UsageError: The training failed; it has said why.
    """
    order = task.folder / "fit.json"
    write_json(order, {"config": experiment.config, "task": {**asdict(task), "folder": None}})
    command = [sys.executable, "-m", "orthounlearn.engine.fit", str(order)]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own module
        raise UsageError("Training on several devices failed; the reason stands above.")
    order.unlink()


def _main() -> None:
    prepare_process()
    order = Path(sys.argv[1])
    wanted = read_json(order)
    task = Fit(**{**wanted["task"], "folder": order.parent})
    try:
        fit(open_experiment(wanted["config"]), task)
    except UsageError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    _main()
