"""Logits of a network on the audited splits, with the test transform, in order."""

import logging
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from orthounlearn.data.loader import BatchLoader
from orthounlearn.data.splits import Indices, Splits, subsample
from orthounlearn.engine.audit.features import FeatureReader, concatenate
from orthounlearn.engine.experiment import Experiment
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, writing
from orthounlearn.methods.layers import evaluating
from orthounlearn.metrics.suite import AUDITED, Outputs, probed_layers, usable_logits

_log = logging.getLogger(__name__)

DAMAGES = (OSError, EOFError, KeyError, ValueError, BadZipFile, zlib.error)
"""What NumPy raises for an .npz file that is not whole."""


def predict(
    experiment: Experiment, net: nn.Module, splits: Splits, names: Sequence[str] = AUDITED
) -> Outputs:
    """Run a network over splits; the modes of its modules are restored.

    Args:
        experiment: Data, device and precision.
        net: On the device.
        splits: Of the request.
        names: Which splits. Features are kept of those that probes read.

    Raises:
        DivergedError: The network puts out nan, or what cannot be a logit.
    """
    logits, labels, features = {}, {}, {}
    reader = FeatureReader(net, experiment.example())
    with evaluating(net):
        for name in names:
            with reader.reading(probed_layers(name, reader.layers)) as read:
                batches = []
                for images, target in _loader(experiment, splits, name):
                    batches.append((_logits(experiment, net, images), read(), target.numpy()))
            logits[name] = usable_logits(np.concatenate([part for part, _, _ in batches]), name)
            labels[name] = np.concatenate([part for _, _, part in batches])
            features[name] = concatenate([part for _, part, _ in batches])
    return Outputs(logits, labels, {name: found for name, found in features.items() if found})


@torch.inference_mode()
def _logits(experiment: Experiment, net: nn.Module, images: torch.Tensor) -> NDArray[np.float32]:
    batch = experiment.transform.evaluate(images.to(experiment.device, non_blocking=True))
    with experiment.autocast():
        logits: NDArray[np.float32] = net(batch).float().cpu().numpy()
    return logits


def audited(experiment: Experiment, splits: Splits, name: str) -> Indices:
    """Return the indices of a split that are run; of retained train images a stratified sample."""
    if name in ("retain_train", "retain_val"):
        limit = experiment.config["metrics"]["max_images"]
        labels_N = experiment.data.train.labels_N
        return subsample(splits[name], labels_N, limit=limit, seed=splits.seed)
    return splits[name]


def _loader(experiment: Experiment, splits: Splits, name: str) -> BatchLoader:
    part = experiment.data.train if name.endswith(("_train", "_val")) else experiment.data.test
    batch_size = experiment.config["metrics"]["batch_size"]
    return BatchLoader(part, audited(experiment, splits, name), batch_size=batch_size)


def cached_outputs(
    experiment: Experiment,
    make: Callable[[], nn.Module],
    splits: Splits,
    folder: Path,
    names: Sequence[str] = AUDITED,
    *,
    after: Sequence[Any] = (),
) -> Outputs:
    """Return the outputs of a stored network; computed once per request and then read.

    Args:
        experiment: Data, device and precision.
        make: Returns the network; called if its outputs are not stored.
        splits: Of the request.
        folder: Of the stored network.
        names: Which splits.
        after: What was done to the stored network, of a network that is made of it.
    """
    limit = experiment.config["metrics"]["max_images"]
    of_what = [splits.hash, list(names), limit, _FORMAT, *after]
    path = folder / f"outputs-{digest(of_what)[:12]}.npz"
    if path.exists():
        try:
            return load_outputs(path)
        except UsageError as error:
            _log.warning("%s They are computed again.", error)
    outputs = predict(experiment, make(), splits, names)
    save_outputs(outputs, path, splits)
    return outputs


_FORMAT = 2
"""Raise it when other arrays are kept: outputs of stored networks are then computed again."""


def save_outputs(outputs: Outputs, path: Path, splits: Splits) -> None:
    """Write all arrays with the hash of the splits, atomically."""
    arrays: dict[str, Any] = {}
    for name, values in outputs.logits.items():
        arrays |= {f"logits/{name}": values, f"labels/{name}": outputs.labels[name]}
    for name, layers in outputs.features.items():
        arrays |= {f"features/{name}/{layer}": values for layer, values in layers.items()}
    with writing(path) as temporary:
        np.savez(temporary, splits_hash=np.array(splits.hash), **arrays)


def load_outputs(path: Path) -> Outputs:
    """Read what `save_outputs` wrote.

    Raises:
        UsageError: The file is damaged.
    """
    logits, labels = {}, {}
    features: dict[str, dict[str, NDArray[np.float16]]] = defaultdict(dict)
    try:
        with path.open("rb") as file, np.load(file) as stored:
            for key in stored:
                kind, _, rest = key.partition("/")
                if kind == "logits":
                    logits[rest] = stored[key]
                elif kind == "labels":
                    labels[rest] = stored[key]
                elif kind == "features":
                    name, _, layer = rest.partition("/")
                    features[name][layer] = stored[key]
    except DAMAGES as error:
        raise UsageError(f"The outputs in {path} are damaged ({error}).") from error
    return Outputs(logits, labels, dict(features))
