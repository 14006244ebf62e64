"""The network that requests start from: the stored original, or a file of the user's."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.dry_run import check_network
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.files import digest


@dataclass(frozen=True)
class Origin:
    """A network before any request.

    Attributes:
        net: On the device, in eval mode.
        folder: Where what a method prepares of it is kept.
    """

    net: nn.Module
    folder: Path


def kept_folder(experiment: Experiment) -> Path:
    """Return where what methods prepare of the original is kept; nothing is loaded."""
    config = experiment.config
    if not config["checkpoint"]:
        return stored_model(experiment, seed=config["seed"]).folder
    path = Path(config["checkpoint"])
    # A stored model's folder is of its images; a user's file may meet others another time.
    return path.with_name(f"{path.name}.kept-{digest(experiment.trained_on)[:8]}")


def open_origin(experiment: Experiment, trained: nn.Module | None = None) -> Origin:
    """Return the original: the user's file, or the stored network, trained if it is not there.

    Args:
        experiment: With `checkpoint` or without.
        trained: The original model, if it was just trained; it is left as it is.

    Raises:
        UsageError: The file does not fit the model, or the training diverged.
    """
    config, folder = experiment.config, kept_folder(experiment)
    if config["checkpoint"]:
        check_network(experiment)
        net = experiment.new_net(config["seed"])
        load_network(net, Path(config["checkpoint"]))
    elif trained is not None:
        net = experiment.new_net(config["seed"])
        net.load_state_dict(trained.state_dict())
    else:
        net = ensure_trained(experiment, seed=config["seed"]).load(experiment)
    return Origin(net.to(experiment.device).eval(), folder)
