"""The model store: every network is trained once, under a key of what determines it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from torch import nn

from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.dry_run import check_training
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.fit import Fit, fit, fit_on_several_devices
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, make_folder, read_json

_LONGEST = 200  # bytes of a name


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
        """Return the network, on the device, in eval mode.

        Raises:
            UsageError: Its file is damaged.
        """
        net = experiment.new_net(0)
        try:
            load_network(net, self.checkpoint)
        except UsageError as error:
            raise UsageError(
                f"{error} It is a stored network: delete {self.folder}, and it is trained again."
            ) from error
        return net.to(experiment.device).eval()


def stored_model(
    experiment: Experiment, *, without: Sequence[int] = (), seed: int, shadow: int | None = None
) -> StoredModel:
    """Return the place of a network in the store, trained or not.

    Args:
        experiment: What to train, and how.
        without: Classes left out of the training set: () is the original.
        seed: Of weights, order and crops.
        shadow: Number of a shadow, which is trained on its half of the images; None: on all.
    """
    key = experiment.training_key(without=without, seed=seed, shadow=shadow)
    config = experiment.config
    parts = [
        experiment.data.name,
        experiment.model_name,
        config["regularizer"]["name"],
        f"seed{seed}",
    ]
    if shadow is not None:
        parts.append(f"shadow{shadow}")
    if without:
        parts.append("without-" + "-".join(experiment.data.class_names[c] for c in without))
    name = "_".join(_slug(part) for part in parts)
    return StoredModel(experiment.runs / "models" / f"{short_name(name)}_{key[:8]}", key)


def short_name(text: str) -> str:
    """Return a text as a part of a path: its tail is a hash where it is too long for a file system.

    File systems end names at 255 bytes; 55 are left for keys and endings.

    >>> short_name("forget-cat")
    'forget-cat'
    >>> short_name("forget-" + "cat+" * 99)[-14:]
    '+cat+-9bcc24a4'
    """
    if len(text.encode()) <= _LONGEST:
        return text
    return f"{text.encode()[: _LONGEST - 9].decode(errors='ignore')}-{digest(text)[:8]}"


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in text)


def ensure_trained(
    experiment: Experiment,
    *,
    without: Sequence[int] = (),
    seed: int,
    shadow: int | None = None,
    on_fit_end: Callable[[nn.Module], None] | None = None,
) -> StoredModel:
    """Return a network from the store, training it first if it is not there.

    Two processes that want the same network wait for one training. A training that was killed goes
    on at its last finished epoch.

    Args:
        experiment: What to train, and how.
        without: Classes left out of the training set.
        seed: Of weights, order and crops.
        shadow: Number of a shadow, which is trained on its half of the images; None: on all.
        on_fit_end: Called with the network at the end of the fit, if there is one in this process.

    Raises:
        UsageError: The network does not fit the images, or the training diverged.
    """
    stored = stored_model(experiment, without=without, seed=seed, shadow=shadow)
    if stored.is_trained:
        return stored
    check_training(experiment)
    make_folder(stored.folder)
    # Not `with_suffix`: names with a dot would share a lock, and wait for themselves.
    with FileLock(stored.folder.with_name(stored.folder.name + ".lock")):
        if not stored.is_trained:
            task = Fit(stored.folder, stored.key, tuple(without), seed, shadow)
            if experiment.on_several_devices:
                fit_on_several_devices(experiment, task)
            else:
                fit(experiment, task, on_fit_end=on_fit_end)
    return stored
